"""Parts of a linear's columns, told apart in four dimensions.

``linear(x).view(batch, rows, 3, heads, size).unbind(2)``, with or without a permutation between, goes through a fifth
dimension, which Vulkan tensors have not: each layer would leave the delegate. Part i of the view is a view of part i of
the last dimension. So do the pairs of an interleaved rotary embedding, ``x.view(batch, rows, heads, -1, 2).unbind(-1)``:
part i of them is every second column.
"""

import sys
from dataclasses import dataclass

import torch
from torch import fx

from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.operands import operand
from vkfuse.rewrite.repairs.each import replaces

aten = torch.ops.aten

_VIEWS = (aten.view.default, aten.reshape.default, aten._unsafe_view.default)  # noqa: SLF001 - the operator's name


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """Part `index` of `view`'s dimension `stacked`; `order` is the permutation of the view before that."""

    view: fx.Node
    stacked: int
    index: int
    order: tuple[int, ...]


@replaces(
    *(aten.select.int, aten.unbind.int), code="stacks-as-slices", detail="four dimensions in place of five"
)
def stacks_as_slices(
    editor: GraphEditor, node: fx.Node, which: int | None, x: fx.Node, dim: int
) -> torch.Tensor | None:
    """Replace each part that is taken out of a view of five dimensions or more."""
    index = operand(node, "index") if which is None else which
    part = _part(x, dim, index % x.meta["val"].shape[dim]) if isinstance(index, int) else None
    return None if part is None else _slice(editor, part)


def _slice(editor: GraphEditor, part: _Part) -> torch.Tensor:
    shape, source = part.view.meta["val"].shape, operand(part.view, "x")
    last = source.meta["val"].ndim - 1
    rest = [int(size) for d, size in enumerate(shape) if d >= last and d != part.stacked]
    where = _first(rest, part) if part.stacked == last else (part.index, sys.maxsize, int(shape[-1]))
    whole: torch.Tensor = aten.slice.Tensor(editor.tensor(source), last, *where)
    if len(rest) > 1:
        whole = whole.reshape([*editor.sizes(source)[:last], *rest])
    kept = [d for d in part.order if d != part.stacked]
    order = [d - (d > part.stacked) for d in kept]
    return whole if order == sorted(order) else whole.permute(order)


def _first(rest: list[int], part: _Part) -> tuple[int, int]:
    """Where the columns of a part begin and end that differs in the first of the dimensions that they are split in."""
    width = torch.Size(rest).numel()
    return part.index * width, (part.index + 1) * width


def _part(x: fx.Node, dim: int, index: int) -> _Part | None:
    """Part `index` of a view, which split the last dimension in two or more, along the dimension that is `x`'s `dim`."""
    order, view = _permutation(x)
    if view.target not in _VIEWS or view.meta["val"].ndim <= 4 or not _splits_last(view):
        return None
    stacked = order[dim]
    if stacked not in {operand(view, "x").meta["val"].ndim - 1, view.meta["val"].ndim - 1}:
        return None
    return _Part(view=view, stacked=stacked, index=index, order=order)


def _permutation(node: fx.Node) -> tuple[tuple[int, ...], fx.Node]:
    """The order of dimensions that a permutation gives its input, and that input; any other node in its own order."""
    dimensions = node.meta["val"].ndim
    if node.target != aten.permute.default:
        return tuple(range(dimensions)), node
    return tuple(d % dimensions for d in operand(node, "dims")), operand(node, "x")


def _splits_last(view: fx.Node) -> bool:
    """Whether a view keeps every dimension of its input but the last, of static size, which it splits."""
    before, after = operand(view, "x").meta["val"].shape, view.meta["val"].shape
    lead = len(before) - 1
    static = all(isinstance(size, int) for size in (before[-1], *after[lead:]))
    return static and [str(s) for s in before[:-1]] == [str(s) for s in after[:lead]]
