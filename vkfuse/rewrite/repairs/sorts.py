"""Sorts: no library of ExecuTorch has a kernel of them, but of ``topk``, which orders what it returns."""

from typing import Any, Final

import torch
from torch import fx

from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.operands import operand
from vkfuse.rewrite.repairs.each import replaces
from vkfuse.rewrite.traced import END

aten = torch.ops.aten

_ARGSORTS: Final = (aten.argsort.default, aten.argsort.stable)
_APART: Final = 1 << 32  # more than there are values


@replaces(
    *(aten.sort.default, aten.sort.stable, *_ARGSORTS),
    code="sorts-as-topk",
    detail="no kernel sorts, topk orders",
)
def sorts_as_topk(
    editor: GraphEditor, node: fx.Node, which: int | None, x: torch.Tensor, dim: int, descending: bool
) -> torch.Tensor | None:
    """Replace each result of a sort by the largest, or smallest, of as many as there are, equal ones in their order."""
    if not x.ndim or x.dtype is torch.bool:
        return None
    size = editor.sizes(operand(node, "x"))[dim % x.ndim]
    values, places = x.topk(size, dim, descending, True)
    return values if which == 0 else _places(values, places, dim, size)


def _places(values: torch.Tensor, places: torch.Tensor, dim: int, size: Any) -> torch.Tensor:
    """The places of ordered values, of equal ones in ascending order: a second order, of integers that differ."""
    after, before = (aten.slice.Tensor(values, dim, start, end) for start, end in ((1, END), (0, -1)))
    steps = after.ne(before)
    if values.is_floating_point():  # what is no number is like what else is none
        steps = steps.logical_and(after.eq(after).logical_or(before.eq(before)))
    first = aten.slice.Tensor(places, dim, 0, 1) * 0
    groups = torch.cat([first, steps.to(torch.int64)], dim).cumsum(dim)
    ordered, _ = (groups * _APART + places).topk(size, dim, False, True)
    return ordered.remainder(_APART)
