"""Indices that are looked up are checked, where a run asks for it: no shader of the runtime does, the CPU's lookup does.

An index divided by the table's rows, rounded down, is 0 in the table, -1 where it counts from the end, else other.
It is looked up in a table of zeros that has just those rows, and what that gives is added to the index.
"""

import torch
from torch import fx

from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.operands import operand
from vkfuse.rewrite.repairs.each import replaces
from vkfuse.rewrite.survey import lookup_in

aten = torch.ops.aten


@replaces(code="indices-checked", detail="a call fails where an index is outside of its table")
def indices_checked(editor: GraphEditor, node: fx.Node) -> fx.Node | None:
    """Check the indices of each lookup in a table that is constant."""
    found = lookup_in(node) if node.op == "call_function" and node not in editor.constants else None
    if found is None or found[0] not in editor.constants or found[1] in editor.constants:
        return None
    table, indices = found
    rows, signed = table.meta["val"].shape[0], node.target == aten.index.Tensor
    checked = editor.once((indices, rows, signed), lambda: _checked(editor, indices, rows, signed=signed))
    return _reading(editor, node, indices, checked)


def _checked(editor: GraphEditor, indices: fx.Node, rows: int, *, signed: bool) -> torch.Tensor:
    """`indices`, which the CPU's lookup lets through only in a table of so many rows."""
    given = editor.tensor(indices)
    tables = aten.div.Tensor_mode(given, rows, rounding_mode="floor")
    zeros = editor.stored(torch.zeros(1 + signed, 1, dtype=given.dtype), "in_table")
    nothing = aten.embedding.default(zeros, tables + 1 if signed else tables)
    return given + nothing.squeeze(-1)  # type: ignore[no-any-return]


def _reading(editor: GraphEditor, node: fx.Node, old: fx.Node, new: torch.Tensor) -> fx.Node:
    """`node` again, made of `new` in place of `old`; between the two a gather has what spreads them over the columns."""
    if old not in node.all_input_nodes:
        inner = operand(node, "index" if node.target == aten.gather.default else "x")
        old, new = inner, editor.tensor(_reading(editor, inner, old, new))
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda n: new if n is old else n)
    return editor.call(node.target, *args, **kwargs)
