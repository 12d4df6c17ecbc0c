"""The choice of some of many experts for each token, as arithmetic on floats that a delegate has.

No runtime has ``topk``, and comparisons give bools, which its arithmetic does not take. An expert is chosen if fewer than k
have a greater score; of equal scores the first counts as greater.
"""

from dataclasses import dataclass
from typing import Final

import torch
from torch import fx

from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.operands import operands

_STEEP: Final = 6e4  # a half can hold it
_TIMES: Final = 3  # scores that differ by more than 1 / _STEEP ** _TIMES are told apart
_MOST: Final = 6e4  # beyond any score that a router gives: softmax makes 0 of its negative beside any; a half can hold it


@dataclass(frozen=True, slots=True, kw_only=True)
class Routing:
    """`count` of `experts` chosen for each token by finite `scores` [T, experts]; `chosen` is 1 for them, else 0."""

    topk: fx.Node
    scores: torch.Tensor
    chosen: torch.Tensor
    experts: int
    count: int

    def only_chosen(self, dense: torch.Tensor) -> torch.Tensor:
        """`dense` [T, experts, ...] with zeros for experts that are not chosen."""
        ones = [1] * (dense.ndim - 2)
        return dense * (self.chosen.reshape([-1, self.experts, *ones]) if ones else self.chosen)

    def softmax(self, dense: torch.Tensor, dtype: torch.dtype | None) -> torch.Tensor:
        """Softmax of `dense` [T, experts] over the chosen."""
        hidden = (self.chosen - 1.0) * _MOST
        return (self.only_chosen(dense) + hidden).softmax(1, dtype)


def routing_of(editor: GraphEditor, topk: fx.Node) -> Routing | None:
    """The choice that `topk` is, computed in front of it; None for one of another kind."""
    given = operands(topk)
    scores, count = editor.tensor(given["x"]), given["k"]
    last = given["dim"] in {-1, scores.ndim - 1}
    if scores.ndim != 2 or not (given["largest"] and last) or not isinstance(scores.shape[-1], int):
        return None
    with editor.before(topk):
        dense = scores.clamp(-_MOST, _MOST)  # masked ones: infinity times 0 is no number
        chosen = _chosen(editor, dense, count)
    return Routing(topk=topk, scores=dense, chosen=chosen, experts=scores.shape[-1], count=count)


def _chosen(editor: GraphEditor, scores: torch.Tensor, count: int) -> torch.Tensor:
    """1 for each of the `count` greatest of `scores` [T, experts], else 0."""
    every = torch.arange(scores.shape[-1])
    order = (every[None, :] - every[:, None]).sign()  # 1 for pairs with a later expert, -1 with an earlier
    signs = editor.stored(order.to(scores.dtype)[None], "experts.order")
    greater = (scores.unsqueeze(1) - scores.unsqueeze(2)) * signs
    for _ in range(_TIMES):
        greater = (greater * _STEEP).clamp(0.0, 1.0)
    more = (greater * signs).sum([2])
    left = editor.stored(((count - every) * 4 - 2).to(scores.dtype)[None], "experts.places")
    return (left - more * 4.0).clamp(0.0, 1.0)
