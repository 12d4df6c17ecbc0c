"""Operators that lay values out otherwise and compute none: views, copies, permutations and the like."""

import math
from collections.abc import Collection, Iterator, Sequence
from typing import Any, Final

import torch
from torch import fx

from vkfuse.rewrite.operands import operand

aten = torch.ops.aten

VIEWS: Final = (aten.view.default, aten.reshape.default, aten._unsafe_view.default, aten.flatten.using_ints)  # noqa: SLF001
COPIES: Final = (aten.clone.default, aten.contiguous.default)
PERMUTATIONS: Final = (aten.transpose.int, aten.permute.default)
TRANSPOSES: Final = (aten.t.default, *PERMUTATIONS)  # of a matrix
MOVES: Final = (
    *(*VIEWS, *COPIES, *PERMUTATIONS),
    *(aten.expand.default, aten.unsqueeze.default, aten.squeeze.dim, aten.slice.Tensor),
)  # every value of the result is one of the first argument


def behind(node: fx.Node, kinds: Collection[Any]) -> fx.Node:
    """What `node` is made of by operators of some kinds, one after the other; itself where it is made otherwise."""
    while node.target in kinds:
        node = operand(node, "x")
    return node


def readers(node: fx.Node, kinds: Collection[Any]) -> Iterator[fx.Node]:
    """Yield what reads `node`, operators of some kinds looked through."""
    for user in node.users:
        if user.target in kinds:
            yield from readers(user, kinds)
        else:
            yield user


def order_of(moved: fx.Node) -> list[int]:
    """The order that a permutation gives the dimensions of what it reads; any other node leaves them as they are."""
    rank = moved.meta["val"].ndim
    if moved.target == aten.permute.default:
        return [d % rank for d in operand(moved, "dims")]
    order = list(range(rank))
    if moved.target == aten.transpose.int:
        one, other = operand(moved, "dim0") % rank, operand(moved, "dim1") % rank
        order[one], order[other] = order[other], order[one]
    return order


def blocks_of(shape: Sequence[Any], order: Sequence[int]) -> tuple[list[Any], list[int]]:
    """Sizes of the blocks of dimensions that a permutation moves together, ones left out, and the order of the blocks."""
    kept = [d for d in order if not (isinstance(shape[d], int) and shape[d] == 1)]
    rank = {d: place for place, d in enumerate(sorted(kept))}
    starts = [i for i, d in enumerate(kept) if i == 0 or rank[kept[i - 1]] + 1 != rank[d]]
    runs = [kept[start:end] for start, end in zip(starts, [*starts[1:], len(kept)], strict=False)]
    blocks = sorted(runs)
    return [math.prod(shape[d] for d in block) for block in blocks], [blocks.index(run) for run in runs]


def same_shape(*nodes: fx.Node) -> bool:
    """Whether tensors have the same sizes, compared as expressions, without a guard."""
    return len({str(tuple(node.meta["val"].shape)) for node in nodes}) == 1
