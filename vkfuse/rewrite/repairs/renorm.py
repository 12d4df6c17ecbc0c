"""``nn.Embedding(max_norm=...)`` renormalizes rows in place before it looks them up; no runtime has that operator.

A row's norm depends on that row alone, so that renormalizing all rows of a constant table gives every lookup the rows
that it would have had.
"""

import torch
from torch import fx

from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.repairs.each import replaces

aten = torch.ops.aten


@replaces(aten.embedding_renorm.default, code="renormalized", detail="max_norm applied to every row")
def renormalize_whole_tables(editor: GraphEditor, node: fx.Node, x: fx.Node) -> torch.Tensor | None:
    """Let each renormalization of a constant table cover all of its rows, which makes its result a constant."""
    if x not in editor.constants or not _only_looked_up(node):
        return None
    return editor.again(
        node, indices=editor.constant(torch.arange(x.meta["val"].shape[0]), f"{node.name}.rows")
    )


def _only_looked_up(node: fx.Node) -> bool:
    """Whether only lookups with the same indices read a renormalization."""
    return all(
        u.target == aten.embedding.default and u.args[0] is node and u.args[1] is node.args[1]
        for u in node.users
    )
