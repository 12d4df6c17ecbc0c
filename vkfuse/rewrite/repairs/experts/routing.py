"""The choice of some of many experts for each token, as arithmetic on floats that a delegate has.

No runtime has ``topk``, and comparisons give bools, which its arithmetic does not take. An expert is chosen if fewer than k
have a greater score; of equal scores the first counts as greater.
"""

from dataclasses import dataclass
from math import prod
from typing import Final

import torch
from torch import fx

from vkfuse.program.tensors import described
from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.operands import operands

_STEEP: Final = 6e4  # a half can hold it
_LARGEST: Final = 1 << 28  # values of what compares each score of a token with each other, 1 GiB of floats
_TIMES: Final = 3  # scores that differ by more than 1 / _STEEP ** _TIMES are told apart
MOST: Final = 6e4  # beyond any score that a router gives: softmax makes 0 of its negative beside any; a half can hold it


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
        hidden = (self.chosen - 1.0) * MOST
        return (self.only_chosen(dense) + hidden).softmax(1, dtype)


def routing_of(editor: GraphEditor, topk: fx.Node) -> Routing | None:
    """The choice that `topk` is, computed in front of it; None for one of another kind."""
    given = operands(topk)
    scores, count = editor.tensor(given["x"]), given["k"]
    if scores.ndim != 2 or not is_choice(topk):
        return None
    with editor.before(topk):
        dense = finite(scores)
        chosen = chosen_of(editor, dense, count)
    return Routing(topk=topk, scores=dense, chosen=chosen, experts=scores.shape[-1], count=count)


def is_choice(topk: fx.Node) -> bool:
    """Whether `topk` is of the greatest along the last dimension, of a known number of floats that is not too large."""
    given = operands(topk)
    value: torch.Tensor = given["x"].meta["val"]
    last = value.ndim > 0 and given["dim"] in {-1, value.ndim - 1}
    known = last and isinstance(value.shape[-1], int) and value.is_floating_point()
    return bool(given["largest"] and known and prod(described(value).dims) * value.shape[-1] <= _LARGEST)


def finite(scores: torch.Tensor) -> torch.Tensor:
    """Scores without infinities, as masked ones have them: infinity times 0 is no number."""
    return scores.clamp(-MOST, MOST)


def chosen_of(editor: GraphEditor, scores: torch.Tensor, count: int) -> torch.Tensor:
    """1 for each of the `count` greatest of finite `scores` [..., experts], else 0."""
    experts, leading = scores.shape[-1], [1] * (scores.ndim - 1)
    every = torch.arange(experts)
    order = (every[None, :] - every[:, None]).sign()  # 1 for pairs with a later expert, -1 with an earlier
    signs = editor.stored(order.to(scores.dtype).view(*leading, experts, experts), "experts.order")
    greater = (scores.unsqueeze(-2) - scores.unsqueeze(-1)) * signs
    for _ in range(_TIMES):
        greater = (greater * _STEEP).clamp(0.0, 1.0)
    more = (greater * signs).sum([-1])
    places = ((count - every) * 4 - 2).to(scores.dtype).view(*leading, experts)
    return (editor.stored(places, "experts.places") - more * 4.0).clamp(0.0, 1.0)
