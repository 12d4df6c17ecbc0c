"""Products of matrices in a wider type than their own.

``aten._int_mm`` (int8-dynamic-activation int8-weight linears) has no kernel in any ExecuTorch runtime. It is written as an
integer matmul, which the portable library has; the weight stays one byte and is widened at run time. Exact: int32 sums of
int8 products are the operator's own.

Half-precision products are summed in half by the shaders of buffers and by the portable CPU kernels (`sums-in-half`), where
torch sums in float32: long ones of two activations are multiplied in float32. A constant matrix would be stored twice as
large; there verify says how far off the file is.
"""

import torch
from torch import fx
from torch.export import ExportedProgram

from vkfuse.program.tensors import described
from vkfuse.rewrite.arguments import argument
from vkfuse.rewrite.constants import Constants
from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.repairs.each import replace_each
from vkfuse.rewrite.repairs.notes import Repair

aten = torch.ops.aten


def widen_integer_matmuls(exported: ExportedProgram) -> tuple[ExportedProgram, tuple[Repair, ...]]:
    """Replace each int8 matmul by an int32 one."""
    found = [n for n in exported.graph.nodes if n.target == aten._int_mm.default]  # noqa: SLF001 - the operator's name
    detail = "int8 matmuls on the CPU, the weight one byte a value"
    return replace_each(exported, found, _widened, code="int-mm-widened", detail=detail)


def widen_long_half_matmuls(exported: ExportedProgram) -> tuple[ExportedProgram, tuple[Repair, ...]]:
    """Multiply half-precision activations over more than 512 columns in float32."""
    constants = Constants(exported)
    found = [n for n in exported.graph.nodes if n.target in _PRODUCTS and _is_long_half(n, constants)]
    detail = "half-precision sums of more than 512 products"
    return replace_each(exported, found, _in_float, code="half-matmul-widened", detail=detail)


def _is_long_half(node: fx.Node, constants: Constants) -> bool:
    first, second = _factors(node)
    return (
        node.meta["val"].dtype is torch.float16
        and described(first.meta["val"]).dims[-1] > _LONG
        and not (first in constants or second in constants)
    )


def _in_float(editor: GraphEditor, node: fx.Node) -> fx.Node:
    out = editor.call(node.target, *_cast(editor, node, torch.float32))
    return editor.call(aten._to_copy.default, out, dtype=torch.float16)  # noqa: SLF001 - the operator's name


_PRODUCTS = (aten.mm.default, aten.bmm.default, aten.matmul.default)
_LONG = 512


def _widened(editor: GraphEditor, node: fx.Node) -> fx.Node:
    return editor.call(aten.mm.default, *_cast(editor, node, torch.int32))


def _cast(editor: GraphEditor, node: fx.Node, dtype: torch.dtype) -> list[fx.Node]:
    factors = map(editor.node, _factors(node))
    return [editor.call(aten._to_copy.default, factor, dtype=dtype) for factor in factors]  # noqa: SLF001 - the operator's name


def _factors(node: fx.Node) -> tuple[fx.Node, fx.Node]:
    first, second = (argument(node, at, name) for at, name in enumerate(("self", "mat2")))
    return first, second
