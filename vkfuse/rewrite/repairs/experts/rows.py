"""Products of rows sorted by expert, however the experts were chosen: PhiMoE takes one largest after another."""

import torch
from torch import fx

from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.operands import operands
from vkfuse.rewrite.repairs.each import replaces
from vkfuse.rewrite.repairs.experts.products import GROUPED

aten = torch.ops.aten


@replaces(code="grouped-products-of-all", detail="no kernel multiplies rows group by group")
def grouped_products_of_all(editor: GraphEditor, node: fx.Node) -> torch.Tensor | None:
    """Multiply rows [S, K] by all experts' matrices [experts, K, N], and keep each row's own product [S, N].

    A row is of the first expert whose rows end behind it: ends [experts] do not fall.
    """
    if str(node.target) not in GROUPED:
        return None
    given = [of for of in operands(node).values() if of is not None]
    if [of.meta["val"].ndim for of in given if isinstance(of, fx.Node)] != [2, 3, 1]:
        return None
    x, weight, ends = map(editor.tensor, given)
    experts, inputs, outputs = weight.shape
    table = weight.transpose(1, 2).reshape([experts * outputs, inputs])
    every = aten.linear.default(x, table).reshape([-1, experts, outputs])
    row = editor.arange(editor.sizes(x)[0]).unsqueeze(1)
    ended = (row >= ends).to(x.dtype)
    own = torch.cat([ended[:, :1] * 0.0 + 1.0, ended[:, :-1]], 1) - ended
    kept: torch.Tensor = (every * own.unsqueeze(-1)).sum([1])
    return kept
