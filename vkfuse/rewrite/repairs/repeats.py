"""Grouped keys repeated for their queries, in four dimensions.

transformers repeats the key heads of grouped-query attention through a fifth dimension, ``x[:, :, None].expand(...)``,
others by ``repeat_interleave``, which is decomposed to that. Vulkan tensors have no fifth dimension: each layer would
leave the delegate. A product with repeated heads is one of more rows with each head as it is; where something else reads
them, copies side by side are the same tensor: [batch, heads, rows, size] -> [batch * heads, 1, rows, size], n of them
concatenated along the second dimension.

What goes over an edge, padding with the tensor's own values and rolls, is a concatenation of slices too. Decomposed,
circular padding is an empty tensor that slices are written into, which leaves the delegate: no runtime has
``slice_scatter``. The others become indices along a later axis, computed anew with each call.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import fx, ops

from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.moves import PERMUTATIONS, VIEWS, order_of, same_shape
from vkfuse.rewrite.operands import operand, operands
from vkfuse.rewrite.repairs.each import replaces
from vkfuse.rewrite.traced import END

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
    inner = sizes[along + 1 :] if along else [math.prod(sizes[1:])]
    flat = editor.tensor(repeat.source).reshape([-1, 1, *inner])
    repeated = [*sizes[:along], sizes[along] * repeat.count if along else -1, *sizes[along + 1 :]]
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
    if len(shape) != 4 or dim is None or not isinstance(repeats, int):
        return None
    known = shape[1:] if dim % 4 == 0 else shape[dim : dim + 1 or None]
    static = all(isinstance(size, int) for size in known)
    return _Repeat(source=x, count=repeats, dimension=dim % 4) if static else None


def _uncopied(node: fx.Node) -> fx.Node:
    """What `node` is a copy of, or a slice that takes all of it."""
    while node.target in {aten.clone.default, aten.slice.Tensor} and same_shape(node, operand(node, "x")):
        node = operand(node, "x")
    return node


aten = ops.aten

_MOST: Final = 16  # copies of an edge


@replaces(aten.pad.default, code="padding-concatenated", detail="what is repeated, concatenated")
def pads_as_concatenation(x: torch.Tensor, pad: Sequence[int], mode: str) -> torch.Tensor | None:
    """Replace each padding by the other end, by a reflection, or by few copies of the edge: static, positive widths."""
    most = _MOST if mode == "replicate" else END
    if mode not in _BEYOND or not all(type(n) is int and 0 <= n <= most for n in pad):
        return None
    for i in range(0, len(pad), 2):
        dimension, (before, after) = x.ndim - 1 - i // 2, pad[i : i + 2]
        front = _BEYOND[mode](x, dimension, -before) if before else []
        back = _BEYOND[mode](x, dimension, after) if after else []
        if front or back:
            x = torch.cat([*front, x, *back], dimension)
    return x


def _other_end(x: torch.Tensor, dimension: int, width: int) -> list[torch.Tensor]:
    """What stands in front of x (a negative width) or behind it: the values of its other end."""
    return [aten.slice.Tensor(x, dimension, *((width, END) if width < 0 else (0, width)))]


def _mirror(x: torch.Tensor, dimension: int, width: int) -> list[torch.Tensor]:
    """The values beside the edge, which itself is not repeated, in reverse."""
    part = aten.slice.Tensor(x, dimension, *((1, 1 - width) if width < 0 else (-1 - width, -1)))
    return [part if abs(width) == 1 else part.flip([dimension])]


def _edge(x: torch.Tensor, dimension: int, width: int) -> list[torch.Tensor]:
    return [aten.slice.Tensor(x, dimension, *((0, 1) if width < 0 else (-1, END)))] * abs(width)


_BEYOND: Final = {"circular": _other_end, "reflect": _mirror, "replicate": _edge}


@replaces(aten.roll.default, code="rolls-concatenated", detail="both parts, the other way round")
def rolls_as_concatenation(
    node: fx.Node, x: torch.Tensor, shifts: Sequence[int], dims: Sequence[int]
) -> torch.Tensor | None:
    """Replace each roll along static dimensions."""
    sizes = [node.meta["val"].shape[d] for d in dims]
    if not sizes or not all(type(n) is int for n in (*sizes, *shifts)) or 0 in sizes:
        return None
    for dimension, shift, size in zip(dims, shifts, sizes, strict=True):
        if shift % size:
            ends = (-(shift % size), END), (0, -(shift % size))
            x = torch.cat([aten.slice.Tensor(x, dimension, *end) for end in ends], dimension)
    return x
