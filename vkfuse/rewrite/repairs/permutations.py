"""Permutations by way of a fifth dimension, in the dimensions that there are.

``nn.MultiheadAttention`` brings queries, keys and values to the front as ``x.unsqueeze(0).transpose(0, -2).squeeze(-2)``,
of five dimensions on the way, which Vulkan tensors have not. It is a permutation of the four.
"""

import torch
from torch import fx

from vkfuse.rewrite.arguments import argument
from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.repairs.each import replaces

aten = torch.ops.aten

_MOST = 4
_PERMUTATIONS = (aten.transpose.int, aten.permute.default)


@replaces(aten.squeeze.dim, code="permuted-in-four-dimensions", detail="four dimensions in place of five")
def permutations_without_ones(editor: GraphEditor, node: fx.Node) -> fx.Node | None:
    """Replace each squeezed transposition of an unsqueezed tensor of four dimensions."""
    found = _permutation(node)
    return None if found is None else editor.call(aten.permute.default, *found)


@replaces(*_PERMUTATIONS, code="permutations-in-one", detail="one copy in place of two")
def permutations_in_one(editor: GraphEditor, node: fx.Node) -> fx.Node | None:
    """Replace each permutation of a permuted tensor by one of that tensor, or by it, copies aside."""
    first: fx.Node = argument(node, 0, "self")
    if first.op != "call_function" or first.target not in _PERMUTATIONS:
        return None
    rank, source = node.meta["val"].ndim, argument(first, 0, "self")
    before = _order(first, rank)
    order = [before[d] for d in _order(node, rank)]
    return source if order == sorted(order) else editor.call(aten.permute.default, source, order)


def _permutation(node: fx.Node) -> tuple[fx.Node, list[int]] | None:
    """The tensor and the order of its dimensions, where `node` is such a squeeze and removes the added dimension."""
    moved = argument(node, 0, "self")
    if moved.target not in _PERMUTATIONS or moved.meta["val"].ndim <= _MOST:
        return None
    added = argument(moved, 0, "self")
    if added.target != aten.unsqueeze.default:
        return None
    source, rank = argument(added, 0, "self"), moved.meta["val"].ndim
    dimensions: list[int | None] = list(range(rank - 1))
    dimensions.insert(argument(added, 1, "dim") % rank, None)
    order = [dimensions[d] for d in _order(moved, rank)]
    removed = order.pop(argument(node, 1, "dim") % rank)
    return None if removed is not None else (source, [d for d in order if d is not None])


def _order(moved: fx.Node, rank: int) -> list[int]:
    if moved.target == aten.permute.default:
        return [d % rank for d in argument(moved, 1, "dims")]
    order = list(range(rank))
    one, other = argument(moved, 1, "dim0") % rank, argument(moved, 2, "dim1") % rank
    order[one], order[other] = order[other], order[one]
    return order
