"""Turn quantizing operators that stayed in the graph into the arithmetic that defines them.

No ExecuTorch runtime has a kernel for ``torchao.quantize_affine`` or ``torchao.dequantize_affine``, and
``torchao.choose_qparams_affine`` exists only beside the fused linear. Bytes of activations, as
``quantized_decomposed.quantize_per_tensor`` makes them, are for chains of fused operators (impl/Q8ta*.cpp).
"""

from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram, default_decompositions

from vkfuse.rewrite.arguments import argument
from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.repairs.each import replaces
from vkfuse.rewrite.repairs.notes import Repair, Repairs

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
def activations_as_floats(editor: GraphEditor, node: fx.Node) -> fx.Node | None:
    """Write ``dequantize(quantize(x))`` with numbers for scale and zero point as ``clamp(round(x / scale)) * scale``.

    So is what quantization-aware training leaves of it, ``fake_quantize_per_tensor_affine``.

    The integers are of 8 to 24 bits, which float32 holds, so that each step is the one that torch computes.
    """
    decomposed = torch.ops.quantized_decomposed
    if (
        node.target == aten.fake_quantize_per_tensor_affine.default
        and node.meta["val"].dtype == torch.float32
    ):
        scale = torch.tensor(_numbers(node)[0])  # torch inverts it as a float
        return _rounded(editor, argument(node, 0, "self"), float(1 / scale), *_numbers(node))
    quantize = node.args[0] if node.target == decomposed.dequantize_per_tensor.default else None
    if not isinstance(quantize, fx.Node) or quantize.target != decomposed.quantize_per_tensor.default:
        return None
    source = argument(quantize, 0, "input")
    if _numbers(node)[:2] != _numbers(quantize)[:2] or {source.meta["val"].dtype, node.meta["val"].dtype} != {
        torch.float32
    }:
        return None
    return _rounded(editor, source, 1.0 / _numbers(quantize)[0], *_numbers(quantize))


def _rounded(
    editor: GraphEditor, source: fx.Node, inverse: float, scale: float, zero: int, low: int, high: int
) -> fx.Node:
    """The multiple of `scale` that is nearest to each value, within the range of what is stored."""
    steps = editor.call(aten.round.default, editor.call(aten.mul.Tensor, source, inverse))
    kept = editor.call(aten.clamp.default, steps, float(low - zero), float(high - zero))
    return editor.call(aten.mul.Tensor, kept, scale)


def _numbers(node: fx.Node) -> tuple[Any, ...]:
    """Scale, zero point and range of what quantizes or dequantizes by numbers."""
    names = ("scale", "zero_point", "quant_min", "quant_max")
    return tuple(argument(node, at, name) for at, name in enumerate(names, 1))


def _feeds_fused_linear(node: fx.Node) -> bool:
    fused = torch.ops.et_vk.linear_dq8ca_q4gsw.default
    return any(reader.target == fused for result in node.users for reader in result.users)
