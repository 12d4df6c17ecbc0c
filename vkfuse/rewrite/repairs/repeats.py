"""Grouped keys repeated for their queries, in four dimensions.

transformers repeats the key heads of grouped-query attention through a fifth dimension, ``x[:, :, None].expand(...)``,
others by ``repeat_interleave``, which is decomposed to that. Vulkan tensors have no fifth dimension: each layer would
leave the delegate. A product with repeated heads is one of more rows with each head as it is; where something else reads
them, copies side by side are the same tensor: [batch, heads, rows, size] -> [batch * heads, 1, rows, size], n of them
concatenated along the second dimension.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.moves import PERMUTATIONS, VIEWS, order_of, same_shape
from vkfuse.rewrite.operands import operand, operands
from vkfuse.rewrite.repairs.each import replaces

aten = torch.ops.aten


@dataclass(frozen=True, slots=True, kw_only=True)
class _Repeat:
    """``source`` of four dimensions, each part of it along `dimension`, the heads, repeated `count` times."""

    source: fx.Node
    count: int
    dimension: int


@replaces(
    *(*VIEWS, aten.repeat_interleave.self_int),
    code="repeats-concatenated",
    detail="four dimensions in place of five",
)
def repeats_as_concatenation(editor: GraphEditor, node: fx.Node) -> torch.Tensor | None:
    """Replace each repetition of heads through a fifth dimension."""
    repeat = repeat_of(node)
    if repeat is None:
        return None
    sizes, along = editor.sizes(repeat.source), repeat.dimension
    flat = editor.tensor(repeat.source).reshape([-1, 1, *sizes[along + 1 :]])
    repeated = [*sizes[:along], sizes[along] * repeat.count, *sizes[along + 1 :]]
    return torch.cat([flat] * repeat.count, 1).reshape(repeated)


@replaces(aten.matmul.default, code="repeats-as-rows", detail="a head's queries are rows of one product")
def repeats_as_rows(editor: GraphEditor, x: torch.Tensor, other: fx.Node) -> torch.Tensor | None:
    """Replace each product with repeated heads, [batch, heads * n, rows, k] by [batch, heads * n, k, columns]."""
    turned = other.target in PERMUTATIONS and order_of(other) == [0, 1, 3, 2]
    factor = operand(other, "x") if turned else other
    repeat, value = repeat_of(factor), factor.meta["val"]
    same = x.ndim == value.ndim and str(x.shape[:2]) == str(value.shape[:2])
    if repeat is None or repeat.dimension != 1 or not same:
        return None
    batch, heads, rows, size = editor.sizes(x)
    source = editor.tensor(repeat.source)
    grouped = x.reshape([batch, heads // repeat.count, -1, size])
    product = grouped.matmul(source.transpose(-2, -1) if turned else source)
    return product.reshape([batch, heads, rows, editor.sizes(other)[-1]])


def repeat_of(node: fx.Node) -> _Repeat | None:
    """A view to four dimensions of an expansion along a new one, with whatever copies stand between."""
    if node.target == aten.repeat_interleave.self_int:
        return _interleaved(**operands(node))
    if node.target not in VIEWS or node.meta["val"].ndim != 4:
        return None
    expand = _uncopied(operand(node, "x"))
    unsqueeze = _uncopied(operand(expand, "x")) if expand.target == aten.expand.default else expand
    if unsqueeze.target != aten.unsqueeze.default or expand.meta["val"].ndim != 5:
        return None
    source, new = operand(unsqueeze, "x"), operand(unsqueeze, "dim") % 5
    count, along = expand.meta["val"].shape[new], new - 1
    if along < 1 or not isinstance(count, int):
        return None
    wanted = [size * count if d == along else size for d, size in enumerate(source.meta["val"].shape)]
    whole = isinstance(wanted[along], int) and str(list(node.meta["val"].shape)) == str(wanted)
    return _Repeat(source=source, count=count, dimension=along) if whole else None


def _interleaved(*, x: fx.Node, repeats: Any, dim: int | None, **_: Any) -> _Repeat | None:
    shape = x.meta["val"].shape
    if len(shape) != 4 or dim is None or dim % 4 == 0 or not isinstance(repeats, int):
        return None
    return _Repeat(source=x, count=repeats, dimension=dim % 4) if isinstance(shape[dim], int) else None


def _uncopied(node: fx.Node) -> fx.Node:
    """What `node` is a copy of, or a slice that takes all of it."""
    while node.target in {aten.clone.default, aten.slice.Tensor} and same_shape(node, operand(node, "x")):
        node = operand(node, "x")
    return node
