"""Permutations by way of a fifth dimension, in the dimensions that there are.

``nn.MultiheadAttention`` brings queries, keys and values to the front as ``x.unsqueeze(0).transpose(0, -2).squeeze(-2)``,
of five dimensions on the way, which Vulkan tensors have not. It is a permutation of the four. Windows of an image, patches,
and shuffled channels are a view, a permutation and a view, of five or six dimensions of which some stay side by side.
"""

import math
from typing import Any

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


_VIEWS = (aten.view.default, aten.reshape.default, aten._unsafe_view.default, aten.flatten.using_ints)  # noqa: SLF001


@replaces(*_VIEWS, code="permuted-in-four-dimensions", detail="dimensions that stay side by side as one")
def permutations_of_blocks(editor: GraphEditor, node: fx.Node) -> fx.Node | None:
    """Replace a view of a permutation of more dimensions, where those that stay side by side make it four."""
    moved: fx.Node = argument(node, 0, "self")
    while moved.target == aten.clone.default:
        moved = argument(moved, 0, "self")
    found = _blocks(moved) if _is_plain(node) else None
    if found is None:
        return None
    source, sizes, order = found
    whole = editor.call(aten.reshape.default, source, sizes)
    turned = editor.call(aten.permute.default, whole, order)
    return editor.call(aten.reshape.default, turned, [_size([size]) for size in node.meta["val"].shape])


def _blocks(node: fx.Node) -> tuple[fx.Node, list[int], list[int]] | None:
    """What `node` permutes the view of, the sizes of its blocks, and their order; None where they are more than four."""
    if node.target not in _PERMUTATIONS or node.meta["val"].ndim <= _MOST or not _only_viewed(node):
        return None
    before = argument(node, 0, "self")
    shape = before.meta["val"].shape
    order = [d for d in _order(node, len(shape)) if not (isinstance(shape[d], int) and shape[d] == 1)]
    kept = sorted(order)
    places = [kept.index(d) for d in order]
    starts = [i for i, place in enumerate(places) if i == 0 or places[i - 1] + 1 != place]
    runs = [places[start:end] for start, end in zip(starts, [*starts[1:], len(places)], strict=False)]
    blocks = sorted(runs)
    sizes = [_size([shape[kept[place]] for place in block]) for block in blocks]
    if not 0 < len(blocks) <= _MOST or sizes.count(-1) > 1:
        return None
    source = argument(before, 0, "self") if before.target in _VIEWS else before
    return source, sizes, [blocks.index(run) for run in runs]


def _size(dims: list[Any]) -> int:
    """How many values dimensions have, -1 where one is symbolic."""
    return math.prod(dims) if all(isinstance(size, int) for size in dims) else -1


def _only_viewed(node: fx.Node) -> bool:
    """Whether everything that reads a permutation, through copies, are views that can be said anew."""
    return all(
        _only_viewed(user) if user.target == aten.clone.default else user.target in _VIEWS and _is_plain(user)
        for user in node.users
    )


def _is_plain(node: fx.Node) -> bool:
    """Of at most four dimensions, one of them symbolic."""
    shape = node.meta["val"].shape
    return len(shape) <= _MOST and sum(isinstance(size, torch.SymInt) for size in shape) <= 1


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
