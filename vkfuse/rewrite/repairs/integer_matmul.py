"""``aten._int_mm`` (int8-dynamic-activation int8-weight linears) has no kernel in any ExecuTorch runtime.

It is written as an integer matmul, which the portable library has; the weight stays one byte and is widened at run
time. Exact: int32 sums of int8 products are the operator's own.
"""

import torch
from torch import fx
from torch.export import ExportedProgram

from vkfuse.rewrite.arguments import argument
from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.repairs.each import replace_each
from vkfuse.rewrite.repairs.notes import Repair

aten = torch.ops.aten


def widen_integer_matmuls(exported: ExportedProgram) -> tuple[ExportedProgram, tuple[Repair, ...]]:
    """Replace each int8 matmul by an int32 one."""
    found = [n for n in exported.graph.nodes if n.target == aten._int_mm.default]  # noqa: SLF001 - the operator's name
    detail = "int8 matmuls on the CPU, the weight one byte a value"
    return replace_each(exported, found, _widened, code="int-mm-widened", detail=detail)


def _widened(editor: GraphEditor, node: fx.Node) -> fx.Node:
    operands = (editor.node(argument(node, i, name)) for i, name in enumerate(("self", "mat2")))
    wide = [editor.call(aten._to_copy.default, operand, dtype=torch.int32) for operand in operands]  # noqa: SLF001 - the operator's name
    return editor.call(aten.mm.default, *wide)
