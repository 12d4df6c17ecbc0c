"""Permutations as the runtime takes them, and no more of them than it needs."""

from collections.abc import Sequence

import torch
from torch import fx

from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.moves import PERMUTATIONS, order_of
from vkfuse.rewrite.operands import operand
from vkfuse.rewrite.repairs.each import replaces

aten = torch.ops.aten


@replaces(
    aten.permute.default, code="dimensions-from-the-front", detail="the runtime resizes by them as given"
)
def dimensions_from_the_front(editor: GraphEditor, node: fx.Node, dims: Sequence[int]) -> torch.Tensor | None:
    """Count the dimensions of each permutation from the first one."""
    return editor.again(node, dims=order_of(node)) if min(dims, default=0) < 0 else None


@replaces(*PERMUTATIONS, code="permutations-in-one", detail="one copy in place of two")
def permutations_in_one(editor: GraphEditor, node: fx.Node, x: fx.Node) -> torch.Tensor | None:
    """Replace each permutation of a permuted tensor by one of that tensor, or by it, copies aside."""
    return in_one(editor, node) if x.target in PERMUTATIONS else None


def in_one(editor: GraphEditor, node: fx.Node) -> torch.Tensor:
    """What permutations, one after the other, make, by one of them or none."""
    order = list(range(node.meta["val"].ndim))
    while node.target in PERMUTATIONS:
        before = order_of(node)
        order, node = [before[d] for d in order], operand(node, "x")
    return editor.tensor(node) if order == sorted(order) else editor.tensor(node).permute(order)
