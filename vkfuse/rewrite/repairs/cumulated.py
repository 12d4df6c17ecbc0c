"""Cumulative operators in steps: each combines what is one, two, four and so on places in front.

No Vulkan runtime has any, and of all but sums no library has a kernel either.
"""

from collections.abc import Callable, Mapping
from math import prod
from typing import Any, Final, TypeAlias

import torch
from torch import fx

from vkfuse.program.tensors import greatest
from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.operands import is_dynamic
from vkfuse.rewrite.repairs.each import replaces

aten = torch.ops.aten

_LONGEST = 1024  # ten steps
_Combine: TypeAlias = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@replaces(aten.cumsum.default, code="cumulative-sums-in-steps", detail="sums in another order")
def cumulative_sums_in_steps(
    editor: GraphEditor, node: fx.Node, x: torch.Tensor, dim: int
) -> torch.Tensor | None:
    """Replace each cumulative sum of floats along at most 1,024 places, of static sizes."""
    if is_dynamic(x) or node in editor.constants or not x.is_floating_point():
        return None
    if not _is_short(x, dim) or x.dtype != node.meta["val"].dtype:
        return None
    return _in_steps(x, dim, torch.add, 0.0)


@replaces(aten.cumprod.default, code="cumulated-in-steps", detail="products in another order")
def cumulative_products(node: fx.Node, x: torch.Tensor, dim: int) -> torch.Tensor | None:
    """Replace each cumulative product along at most 1,024 places."""
    return _in_steps(x.to(node.meta["val"].dtype), dim, torch.mul, 1.0) if _is_short(x, dim) else None


@replaces(aten.logcumsumexp.default, code="cumulated-in-steps", detail="sums in another order")
def cumulative_log_sums(x: torch.Tensor, dim: int) -> torch.Tensor | None:
    """Replace each logarithm of cumulative sums of exponentials along at most 1,024 places."""
    if not _is_short(x, dim):
        return None
    bound = torch.finfo(x.dtype).max

    def together(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        most = one.maximum(other).clamp(-bound, bound)  # an infinity less itself is no number
        return ((one - most).exp() + (other - most).exp()).log() + most

    return _in_steps(x, dim, together, -torch.inf)


_EXTREMES: Final[Mapping[Any, _Combine]] = {
    aten.cummax.default: torch.maximum,
    aten.cummin.default: torch.minimum,
}


@replaces(*_EXTREMES, code="cumulated-in-steps", detail="the last place of several")
def cumulative_extremes(
    editor: GraphEditor, node: fx.Node, which: int, x: torch.Tensor, dim: int
) -> torch.Tensor | None:
    """Replace each cumulative maximum or minimum of numbers along at most 1,024 places, and where it is."""
    if not _is_short(x, dim) or x.dtype is torch.bool:
        return None
    extreme = _EXTREMES[node.target]
    least, most = _reach(x.dtype)
    start = least if extreme is torch.maximum else most
    values: torch.Tensor = editor.once(("extremes", node.args[0]), lambda: _in_steps(x, dim, extreme, start))
    if which == 0:
        return values
    at = dim % x.ndim
    places = editor.arange(editor.sizes(x)[at]).reshape([-1, *[1] * (x.ndim - 1 - at)])
    found = x.eq(values).logical_or(x.ne(x)).to(torch.int64) * places
    return _in_steps(found, dim, torch.maximum, 0)


def _reach(dtype: torch.dtype) -> tuple[float, float]:
    """What is below all numbers of a type, or among them the least, and what is above."""
    if dtype.is_floating_point:
        return -torch.inf, torch.inf
    return torch.iinfo(dtype).min, torch.iinfo(dtype).max


def _is_short(x: torch.Tensor, dim: int) -> bool:
    return x.ndim > 0 and 0 < greatest(x.shape[dim]) <= _LONGEST


def _in_steps(x: torch.Tensor, dim: int, combine: _Combine, neutral: float) -> torch.Tensor:
    """Combine all that is in front, in as many steps as doublings reach the greatest length (Hillis and Steele, 1986)."""
    at, shape, longest, step = dim % x.ndim, x.shape, greatest(x.shape[dim]), 1
    flat = not is_dynamic(x)
    if flat:
        x, at = x.reshape([-1, longest, prod(shape[at + 1 :])]), 1
    behind = [0, 0] * (x.ndim - 1 - at)
    while step < longest:
        padded = aten.constant_pad_nd.default(x, [*behind, step, 0], neutral)
        x = combine(x, aten.slice.Tensor(padded, at, 0, -step))
        step *= 2
    return x.reshape([*shape]) if flat else x
