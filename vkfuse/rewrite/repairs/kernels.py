"""Operators that ExecuTorch has no kernel for, or one that computes something else, as others that it has."""

from typing import Any, Final

import torch
from torch import fx

from vkfuse.rewrite.constants import Constants
from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.operands import operand, operands
from vkfuse.rewrite.repairs.each import replaces

aten = torch.ops.aten


@replaces(
    *(aten.bucketize.Tensor, aten.searchsorted.Tensor),
    code="buckets-as-counts",
    detail="the runtime has no bucketize",
)
def buckets_as_counts(editor: GraphEditor, node: fx.Node, x: fx.Node, right: bool) -> torch.Tensor | None:
    """Count, for each value, the boundaries [.., n] that are not at or above it, or with `right` not above it.

    Of sorted boundaries, those below a value are as many as the index of its bucket. What is no number is above all.
    """
    given = operands(node)
    boundaries = given.get("boundaries") or given["sorted_sequence"]
    if node in editor.constants or given.get("sorter") or not _may_be_sorted(boundaries, editor.constants):
        return None
    row, reached = editor.tensor(boundaries), editor.tensor(x).unsqueeze(-1)
    row = row if row.ndim == 1 else row.unsqueeze(-2)
    above = row > reached if right or given.get("side") == "right" else row >= reached
    return above.logical_not().sum([-1], dtype=node.meta["val"].dtype)


def _may_be_sorted(boundaries: Any, constants: Constants) -> bool:
    """Whether rows of boundaries are sorted as far as is known: no constants that are not."""
    if boundaries not in constants:
        return True
    rows = constants.value(boundaries)
    return rows.numel() > 0 and bool((rows[..., 1:] >= rows[..., :-1]).all()) and not rows.isnan().any()


@replaces(aten.histc.default, code="buckets-as-counts", detail="no kernel counts values by size")
def histograms_as_counts(
    editor: GraphEditor, node: fx.Node, x: torch.Tensor, bins: int
) -> torch.Tensor | None:
    """Count how many values [..] are in each of `bins` intervals of one size (aten/native/cpu/HistogramKernel.cpp)."""
    low, high = operand(node, "min"), operand(node, "max")
    if not low < high or not x.is_floating_point():
        return None
    flat = x.reshape([-1])
    place = ((flat - low) * bins / (high - low)).floor().clamp(None, bins - 1.0)
    inside = (flat >= low).logical_and(flat <= high)
    buckets = editor.stored(torch.arange(bins, dtype=x.dtype)[:, None], "buckets")
    counts: torch.Tensor = place.eq(buckets).logical_and(inside).to(x.dtype).sum([-1])
    return counts


@replaces(
    *(aten.remainder.Scalar, aten.remainder.Tensor),
    code="remainders-with-sign",
    detail="the runtime's remainder has the sign of what is divided",
)
def remainders_with_sign(node: fx.Node, x: torch.Tensor, other: torch.Tensor | int) -> torch.Tensor | None:
    """Add the divisor to each remainder of integers that has not its sign.

    ExecuTorch's kernel gives the sign of C (kernels/portable/cpu/util/math_util.h, remainder_override): -1 % 64 is -1.
    """
    if node.meta["val"].dtype not in {torch.int8, torch.int16, torch.int32, torch.int64}:
        return None
    rest = x.remainder(other)
    return torch.where(_wrong(rest, other), rest + other, rest)


_LEFT: Final = (aten.__lshift__.Scalar, aten.__lshift__.Tensor, aten.bitwise_left_shift.Scalar_Tensor)
_RIGHT: Final = (aten.__rshift__.Scalar, aten.__rshift__.Tensor, aten.bitwise_right_shift.Scalar_Tensor)


@replaces(*_LEFT, *_RIGHT, code="shifts-of-tensors", detail="no kernel shifts a number, nor by this name")
def shifts_of_tensors(node: fx.Node, x: torch.Tensor | int, other: torch.Tensor | int) -> torch.Tensor | None:
    """Shift integers by the operators that have kernels, which take a tensor on the left."""
    if node.meta["val"].is_floating_point():
        return None
    shift = torch.bitwise_left_shift if node.target in _LEFT else torch.bitwise_right_shift
    return shift(torch.full_like(other, x) if isinstance(x, int) else x, other)  # type: ignore[arg-type]


def _wrong(rest: torch.Tensor, divisor: torch.Tensor | int) -> torch.Tensor:
    """Where a remainder has another sign than its divisor: bool, of the remainder's shape."""
    if isinstance(divisor, int):
        return rest < 0 if divisor > 0 else rest > 0
    return torch.where(divisor < 0, rest > 0, rest < 0)


_BY_SIZES: Final[dict[Any, Any]] = {
    aten.rand_like.default: aten.rand.default,
    aten.randn_like.default: aten.randn.default,
}


@replaces(*_BY_SIZES, code="random-by-sizes", detail="the runtime draws numbers of sizes alone")
def random_by_sizes(editor: GraphEditor, node: fx.Node, x: fx.Node) -> fx.Node:
    """Draw as many numbers of the same type."""
    return editor.call(_BY_SIZES[node.target], editor.sizes(x), dtype=node.meta["val"].dtype)
