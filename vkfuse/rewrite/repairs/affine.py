"""Turn quantizing operators that stayed in the graph into the arithmetic that defines them.

No ExecuTorch runtime has a kernel for ``torchao.quantize_affine`` or ``torchao.dequantize_affine``, and
``torchao.choose_qparams_affine`` exists only beside the fused linear. Bytes of activations, as
``quantized_decomposed.quantize_per_tensor`` makes them, are for chains of fused operators (impl/Q8ta*.cpp).
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram, default_decompositions

from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.operands import operand, operands
from vkfuse.rewrite.repairs.each import Repair, Repairs, replaces

aten = torch.ops.aten


def decompose_affine(exported: ExportedProgram) -> Repairs:
    """Decompose torchao's quantization operators unless a fused linear reads them."""
    torchao = torch.ops.torchao
    operators = (
        *(torchao.quantize_affine.default, torchao.dequantize_affine.default),
        torchao.choose_qparams_affine.default,
    )
    left = [n for n in exported.graph.nodes if n.target in operators and not _feeds_fused_linear(n)]
    if not left:
        return exported, ()
    table = default_decompositions()
    result = exported.run_decompositions({op: table[op] for op in {n.target for n in left}})
    detail = f"{len(left)} torchao operators written as arithmetic"
    return result, (Repair(code="affine-decomposed", nodes=tuple(n.name for n in left), detail=detail),)


@replaces(code="activations-in-floats", detail="rounded and clamped as floats, in the delegate")
def activations_as_floats(editor: GraphEditor, node: fx.Node) -> torch.Tensor | None:
    """Write ``dequantize(quantize(x))`` with numbers for scale and zero point as ``clamp(round(x / scale)) * scale``.

    So is what quantization-aware training leaves of it, ``fake_quantize_per_tensor_affine``.

    The integers are of 8 to 24 bits, which float32 holds, so that each step is the one that torch computes.
    """
    if node.target == aten.fake_quantize_per_tensor_affine.default:
        given = operands(node)
        single = node.meta["val"].dtype == torch.float32
        inverse = float(1 / torch.tensor(given["scale"]))  # as a float, as torch has it
        return _rounded(editor, given, inverse) if single else None
    decomposed = torch.ops.quantized_decomposed
    quantize = operand(node, "x") if node.target == decomposed.dequantize_per_tensor.default else node
    if quantize is node or quantize.target != decomposed.quantize_per_tensor.default:
        return None
    given, back = operands(quantize), operands(node)
    same = all(given[name] == back[name] for name in ("scale", "zero_point"))
    single = {n.meta["val"].dtype for n in (node, given["x"])} == {torch.float32}
    return _rounded(editor, given, 1.0 / given["scale"]) if same and single else None


def _rounded(editor: GraphEditor, given: Mapping[str, Any], inverse: float) -> torch.Tensor:
    """The multiple of the scale that is nearest to each value, within the range of what is stored."""
    low, high = (float(given[name] - given["zero_point"]) for name in ("quant_min", "quant_max"))
    steps = (editor.tensor(given["x"]) * inverse).round()
    return steps.clamp(low, high) * given["scale"]  # type: ignore[no-any-return]


@replaces(code="affine-decomposed", detail="the CPU kernels read zero points as int64")
def tokens_by_other_points(editor: GraphEditor, node: fx.Node) -> torch.Tensor | None:
    """Write quantizing and dequantizing by rows with zero points of other types than int64 as torch computes it.

    A difference of two int8 values is one. Source: torch/ao/quantization/fx/_decomposed.py.
    """
    decomposed = torch.ops.quantized_decomposed
    both = (decomposed.quantize_per_token.default, decomposed.dequantize_per_token.default)
    points = operand(node, "zero_points") if node.target in both else None
    if points is None or points.meta["val"].dtype is torch.int64:
        return None
    if node.target == both[0]:
        return editor.again(node, zero_points=editor.tensor(points).to(torch.int64))
    x, scales, points = (editor.tensor(operand(node, name)) for name in ("x", "scales", "zero_points"))
    return ((x - points) * scales).to(node.meta["val"].dtype)


def _feeds_fused_linear(node: fx.Node) -> bool:
    fused = torch.ops.et_vk.linear_dq8ca_q4gsw.default
    return any(reader.target == fused for result in node.users for reader in result.users)
