"""``aten._int_mm`` (int8-dynamic-activation int8-weight linears) has no kernel in any ExecuTorch runtime.

It is written as an integer matmul, which the portable library has; the weight stays one byte and is widened at run
time. Exact: int32 sums of int8 products are the operator's own.
"""

import torch
from torch.export import ExportedProgram

from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.repairs.notes import Repair

aten = torch.ops.aten


def widen_integer_matmuls(exported: ExportedProgram) -> tuple[ExportedProgram, tuple[Repair, ...]]:
    """Replace each int8 matmul by an int32 one."""
    found = [n for n in exported.graph.nodes if n.target == aten._int_mm.default]  # noqa: SLF001 - the operator's name
    if not found:
        return exported, ()
    editor = GraphEditor(exported)
    for node in found:
        with editor.before(node):
            wide = [editor.call(aten._to_copy.default, editor.node(a), dtype=torch.int32) for a in node.args]  # noqa: SLF001 - the operator's name
            editor.replace(node, editor.call(aten.mm.default, *wide))
    names = tuple(n.name for n in found)
    detail = "int8 matmuls on the CPU, the weight one byte a value"
    return editor.finish(), (Repair(code="int-mm-widened", nodes=names, detail=detail),)
