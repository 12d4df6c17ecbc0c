"""Writes of rows into a tensor at computed positions, however they are spelled."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.moves import VIEWS, same_shape
from vkfuse.rewrite.operands import operand, operands

aten = torch.ops.aten


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """`rows` written into `cache` along `dimension` at `positions`, integers [S].

    `rows` expand to the shape of the cache, with S for its rows.
    """

    cache: fx.Node
    dimension: int
    positions: fx.Node
    rows: fx.Node

    @property
    def one(self) -> bool:
        """Whether it is one row."""
        return tuple(self.positions.meta["val"].shape) == (1,)

    def in_full(self, editor: GraphEditor) -> torch.Tensor:
        """The rows in all dimensions of the cache."""
        rows, wanted = editor.tensor(self.rows), _expected(self.cache, self.dimension, self.positions)
        added = len(wanted) - rows.ndim
        (count,) = editor.sizes(self.positions)
        sizes = [count if d == self.dimension else size for d, size in enumerate(wanted)]
        if list(map(str, rows.shape)) != list(map(str, wanted[added:])):
            return rows.expand(sizes)
        return rows.reshape(sizes) if added else rows


def write_of(node: fx.Node) -> Write | None:
    """The write that `node` is, into a tensor of static shape; None for any other node."""
    found = _index_copy(node) or _index_put(node) or _scatter(node)
    if found is None:
        return None
    cache, dimension, positions, rows = found
    target, index, source = (n.meta["val"] for n in (cache, positions, rows))
    if index.dtype == torch.bool or index.ndim != 1:
        return None
    if not all(isinstance(size, int) for size in target.shape):
        return None
    dimension %= target.ndim
    if not _expands_to(source.shape, _expected(cache, dimension, positions)):
        return None
    return Write(cache=cache, dimension=dimension, positions=positions, rows=rows)


def _expected(cache: fx.Node, dimension: int, positions: fx.Node) -> list[Any]:
    (count,) = positions.meta["val"].shape
    return [count if d == dimension else size for d, size in enumerate(cache.meta["val"].shape)]


def _index_copy(node: fx.Node) -> tuple[fx.Node, int, fx.Node, fx.Node] | None:
    return (*operands(node).values(),) if node.target == aten.index_copy.default else None


def _index_put(node: fx.Node) -> tuple[fx.Node, int, fx.Node, fx.Node] | None:
    """``cache[:, :, positions] = rows``: one index tensor, whole dimensions before it."""
    if node.target != aten.index_put.default or operand(node, "accumulate"):
        return None
    *before, positions = operand(node, "indices")
    whole = all(index is None for index in before)
    return (operand(node, "x"), len(before), positions, operand(node, "values")) if whole else None


def _scatter(node: fx.Node) -> tuple[fx.Node, int, fx.Node, fx.Node] | None:
    """``cache.scatter(dim, positions.view(...).expand(...), rows)``: the same positions everywhere."""
    if node.target != aten.scatter.src:
        return None
    cache, dimension, index, rows = operands(node).values()
    sizes = list(map(str, rows.meta["val"].shape))
    if index.target != aten.expand.default or not same_shape(index, rows):
        return None
    positions, dimension = operand(index, "x"), dimension % len(sizes)
    along = [size if d == dimension else "1" for d, size in enumerate(sizes)]
    others = [size for d, size in enumerate(sizes) if d != dimension]
    whole = others == [str(size) for d, size in enumerate(cache.meta["val"].shape) if d != dimension]
    if not whole or list(map(str, positions.meta["val"].shape)) != along:
        return None
    return cache, dimension, in_one_dimension(positions), rows


def in_one_dimension(node: fx.Node) -> fx.Node:
    """What `node` is a view of, where that has one dimension; else as far as views go."""
    while node.meta["val"].ndim != 1 and node.target in {*VIEWS, aten.unsqueeze.default}:
        node = operand(node, "x")
    return node


def _expands_to(shape: torch.Size, expected: list[Any]) -> bool:
    """Whether a tensor of `shape` can be expanded to `expected`; sizes compare as expressions, without a guard."""
    sizes = ["1"] * (len(expected) - len(shape)) + list(map(str, shape))
    return len(sizes) == len(expected) and all(
        a in {"1", str(b)} for a, b in zip(sizes, expected, strict=True)
    )
