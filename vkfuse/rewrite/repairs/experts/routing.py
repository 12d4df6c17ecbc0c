"""The choice of some of many experts for each token, as arithmetic on floats that a delegate has.

No runtime has ``topk``, and comparisons give bools, which its arithmetic does not take. An expert is chosen if fewer than k
have a greater score; of equal scores the first counts as greater.
"""

from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import fx

from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.operands import operand

aten = torch.ops.aten

_STEEP: Final = 6e4  # a half can hold it
_TIMES: Final = 3  # scores that differ by more than 1 / _STEEP ** _TIMES are told apart
_MOST: Final = 6e4  # beyond any score that a router gives: softmax makes 0 of its negative beside any; a half can hold it


@dataclass(frozen=True, slots=True, kw_only=True)
class Routing:
    """`count` of `experts` chosen for each token by finite `scores` [T, experts]; `chosen` is 1 for them, else 0."""

    topk: fx.Node
    scores: fx.Node
    chosen: fx.Node
    experts: int
    count: int

    def only_chosen(self, editor: GraphEditor, dense: fx.Node) -> fx.Node:
        """`dense` [T, experts, ...] with zeros for experts that are not chosen."""
        ones = [1] * (dense.meta["val"].ndim - 2)
        mask = (
            editor.call(aten.reshape.default, self.chosen, [-1, self.experts, *ones]) if ones else self.chosen
        )
        return editor.call(aten.mul.Tensor, dense, mask)

    def softmax(self, editor: GraphEditor, dense: fx.Node, dtype: torch.dtype | None) -> fx.Node:
        """Softmax of `dense` [T, experts] over the chosen."""
        hidden = editor.call(aten.mul.Tensor, editor.call(aten.sub.Tensor, self.chosen, 1.0), _MOST)
        return editor.call(
            aten.softmax.int, editor.call(aten.add.Tensor, self.only_chosen(editor, dense), hidden), 1, dtype
        )


def routing_of(editor: GraphEditor, topk: fx.Node) -> Routing | None:
    """The choice that `topk` is, computed in front of it; None for one of another kind."""
    scores, count = operand(topk, "x"), operand(topk, "k")
    value: torch.Tensor = scores.meta["val"]
    greatest = operand(topk, "largest")
    last = operand(topk, "dim") in {-1, value.ndim - 1}
    experts = value.shape[-1] if value.ndim else None
    if value.ndim != 2 or not (greatest and last) or not isinstance(experts, int):
        return None
    with editor.before(topk):
        dense = editor.call(
            aten.clamp.default, scores, -_MOST, _MOST
        )  # masked ones: infinity times 0 is no number
        chosen = _chosen(editor, dense, experts, count)
    return Routing(topk=topk, scores=dense, chosen=chosen, experts=experts, count=count)


def _chosen(editor: GraphEditor, scores: fx.Node, experts: int, count: int) -> fx.Node:
    """1 for each of the `count` greatest of `scores` [T, experts], else 0."""
    dtype = scores.meta["val"].dtype
    every = torch.arange(experts)
    order = (
        (every[None, :] - every[:, None]).sign().to(dtype)
    )  # 1 for pairs with a later expert, -1 with an earlier
    others = editor.call(aten.unsqueeze.default, scores, 1)
    own = editor.call(aten.unsqueeze.default, scores, 2)
    signs = editor.constant(order[None], "experts.order")
    greater = editor.call(aten.mul.Tensor, editor.call(aten.sub.Tensor, others, own), signs)
    for _ in range(_TIMES):
        greater = _step(editor, editor.call(aten.mul.Tensor, greater, _STEEP))
    more = editor.call(aten.sum.dim_IntList, editor.call(aten.mul.Tensor, greater, signs), [2])
    left = editor.constant(((count - every) * 4 - 2).to(dtype)[None], "experts.places")
    return _step(editor, editor.call(aten.sub.Tensor, left, editor.call(aten.mul.Tensor, more, 4.0)))


def _step(editor: GraphEditor, node: Any) -> fx.Node:
    return editor.call(aten.clamp.default, node, 0.0, 1.0)
