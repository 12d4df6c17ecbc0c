"""``nn.Embedding(max_norm=...)`` renormalizes rows in place before it looks them up; no runtime has that operator.

A row's norm depends on that row alone, so that renormalizing all rows of a constant table gives every lookup the rows
that it would have had.
"""

import torch
from torch import fx
from torch.export import ExportedProgram

from vkfuse.rewrite.arguments import argument
from vkfuse.rewrite.constants import Constants
from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.repairs.each import replace_each
from vkfuse.rewrite.repairs.notes import Repair

aten = torch.ops.aten


def renormalize_whole_tables(exported: ExportedProgram) -> tuple[ExportedProgram, tuple[Repair, ...]]:
    """Let each renormalization of a constant table cover all of its rows, which makes its result a constant."""
    constants = Constants(exported)
    found = [n for n in exported.graph.nodes if _renormalizes(n, constants)]
    detail = "max_norm applied to every row"
    return replace_each(exported, found, _of_every_row, code="renormalized", detail=detail)


def _of_every_row(editor: GraphEditor, node: fx.Node) -> fx.Node:
    table = argument(node, 0, "self")
    rows = editor.constant(torch.arange(table.meta["val"].shape[0]), f"{node.name}.rows")
    return editor.call(node.target, editor.node(table), rows, *node.args[2:])


def _renormalizes(node: fx.Node, constants: Constants) -> bool:
    """A renormalization that only lookups with the same indices read."""
    if node.target != aten.embedding_renorm.default or node.args[0] not in constants:
        return False
    return all(
        u.target == aten.embedding.default and u.args[0] is node and u.args[1] is node.args[1]
        for u in node.users
    )
