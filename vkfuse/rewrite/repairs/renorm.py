"""``nn.Embedding(max_norm=...)`` renormalizes rows in place before it looks them up; no runtime has that operator.

A row's norm depends on that row alone, so that renormalizing all rows of a constant table gives every lookup the rows
that it would have had.
"""

import torch
from torch import fx
from torch.export import ExportedProgram

from vkfuse.rewrite.constants import Constants
from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.repairs.notes import Repair

aten = torch.ops.aten


def renormalize_whole_tables(exported: ExportedProgram) -> tuple[ExportedProgram, tuple[Repair, ...]]:
    """Let each renormalization of a constant table cover all of its rows, which makes its result a constant."""
    constants = Constants(exported)
    found = [n for n in exported.graph.nodes if _renormalizes(n, constants)]
    if not found:
        return exported, ()
    editor = GraphEditor(exported)
    for node in found:
        rows = torch.arange(node.args[0].meta["val"].shape[0])
        every_row = editor.constant(rows, f"{node.name}.rows")
        with editor.before(node):
            new = editor.call(node.target, editor.node(node.args[0]), every_row, *node.args[2:])
        editor.replace(node, new)
    names = tuple(n.name for n in found)
    return editor.finish(), (
        Repair(code="renormalized", nodes=names, detail="max_norm applied to every row"),
    )


def _renormalizes(node: fx.Node, constants: Constants) -> bool:
    """A renormalization that only lookups with the same indices read."""
    if node.target != aten.embedding_renorm.default or node.args[0] not in constants:
        return False
    return all(
        u.target == aten.embedding.default and u.args[0] is node and u.args[1] is node.args[1]
        for u in node.users
    )
