"""Sorts, and what is read off them: no library of ExecuTorch has a kernel, but of ``topk``, which orders."""

from typing import Any, Final

import torch
from torch import fx

from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.operands import operand
from vkfuse.rewrite.repairs.each import replaces
from vkfuse.rewrite.traced import END

aten = torch.ops.aten

_APART: Final = 1 << 32  # more than there are values


@replaces(aten.sort.default, aten.sort.stable, code="sorts-as-topk", detail="no kernel sorts, topk orders")
def sorts_as_topk(
    editor: GraphEditor, node: fx.Node, which: int, x: torch.Tensor, dim: int, descending: bool
) -> torch.Tensor | None:
    """Replace each result of a sort by the largest, or smallest, of as many as there are, equal ones in their order."""
    if not x.ndim or x.dtype is torch.bool:
        return None
    size = editor.sizes(operand(node, "x"))[dim % x.ndim]
    values, places = x.topk(size, dim, descending, True)
    return values if which == 0 else _places(values, places, dim, size)


def _places(values: torch.Tensor, places: torch.Tensor, dim: int, size: Any) -> torch.Tensor:
    """The places of ordered values, of equal ones in ascending order: a second order, of integers that differ.

    Only tensors of the whole size meet: torch asks of one less whether it is 1, and the example would answer for all.
    """
    parts = (aten.slice.Tensor(values, dim, start, end) for start, end in ((0, 1), (0, -1)))
    before = torch.cat([*parts], dim)
    steps = values.ne(before)
    if values.is_floating_point():  # what is no number is like what else is none
        steps = steps.logical_and(values.eq(values).logical_or(before.eq(before)))
    groups = steps.to(torch.int64).cumsum(dim)
    ordered, _ = (groups * _APART + places).topk(size, dim, False, True)
    return ordered.remainder(_APART)


@replaces(aten.kthvalue.default, code="places-of-sorts", detail="no kernel has it, topk orders")
def least_of_several(which: int, x: torch.Tensor, k: int, dim: int, keepdim: bool) -> torch.Tensor | None:
    """Take the last of the `k` smallest."""
    return _without(x.topk(k, dim, False, True)[which], dim, keepdim, at=k - 1) if x.ndim else None


@replaces(aten.median.default, aten.nanmedian.default, code="places-of-sorts", detail="no kernel has medians")
def medians_of_all(node: fx.Node, x: torch.Tensor) -> torch.Tensor:
    """Take the lower of the values in the middle of a whole tensor."""
    numbers = node.target == aten.nanmedian.default
    return _median(x.reshape([-1]), 0, 0, numbers=numbers).squeeze(0)


_OF_NUMBERS: Final = aten.nanmedian.dim


@replaces(aten.median.dim, _OF_NUMBERS, code="places-of-sorts", detail="no kernel has medians")
def medians_along_one(
    node: fx.Node, which: int, x: torch.Tensor, dim: int, keepdim: bool
) -> torch.Tensor | None:
    """Take the lower of the values in the middle along a dimension, or its place."""
    if not x.ndim:
        return None
    return _without(_median(x, dim, which, numbers=node.target == _OF_NUMBERS), dim, keepdim)


def _median(x: torch.Tensor, dim: int, which: int, *, numbers: bool) -> torch.Tensor:
    """One along `dim`: of the `numbers` there, or what is no number where there is one."""
    ordered, size = x.sort(dim), x.shape[dim]
    values = ordered[0]
    if numbers or not isinstance(size, int):
        count = values.ge(values).to(torch.int64).sum([dim], True)
        middle = ordered[which].gather(dim, ((count - 1) * 0.5).to(torch.int64))
    else:
        middle = _at(ordered[which], dim, (size - 1) // 2)
    if numbers or not x.is_floating_point():
        return middle
    last = _at(values, dim, -1)
    return torch.where(last.ge(last), middle, last if which == 0 else _at(ordered[1], dim, -1))


@replaces(aten.mode.default, code="places-of-sorts", detail="no kernel has it")
def most_frequent(
    editor: GraphEditor, node: fx.Node, which: int, x: torch.Tensor, dim: int, keepdim: bool
) -> torch.Tensor | None:
    """Take the least of the values that most others are equal to, or the last place of it, of integers."""
    if not x.ndim or x.is_floating_point() or x.dtype is torch.bool:
        return None
    last = x.transpose(dim, -1)
    ordered = last.sort(-1)[0]
    alike = ordered.unsqueeze(-1).eq(ordered.unsqueeze(-2)).to(torch.int64).sum([-1])
    found = ordered.gather(-1, alike.argmax(-1, True))
    if which:
        places = editor.arange(editor.sizes(operand(node, "x"))[dim % x.ndim])
        found = (last.eq(found).to(torch.int64) * places).amax([-1], True)
    return _without(found.transpose(dim, -1), dim, keepdim)


def _at(x: torch.Tensor, dim: int, place: int) -> torch.Tensor:
    part: torch.Tensor = aten.slice.Tensor(x, dim, place, END if place == -1 else place + 1)
    return part


def _without(x: torch.Tensor, dim: int, keepdim: bool, at: int | None = None) -> torch.Tensor:
    """One place along `dim`, whichever there is or `at`, and no such dimension but where it is kept."""
    one = x if at is None else _at(x, dim, at)
    return one if keepdim else one.squeeze(dim)
