"""Law 1: the whole table, rebuilt from the bytes to be written, equals what the program computes."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from vkfuse.tables.floats import Array, chunks
from vkfuse.tables.proven import Proof

Rows = Callable[[int, int], Array]
Within = Callable[[Array, Array], Array]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """What a table rebuilt from bytes has of the program's: `differing` values that are not within what is allowed.

    `rounded` values differ within it; `largest` is the largest absolute difference of all, `first_row` the first row that
    has one of `differing`. `exact`: every bit is the program's.
    """

    differing: int
    rounded: int
    largest: float
    first_row: int | None
    exact: bool

    @property
    def proof(self) -> Proof:
        """The same as what is said of a table."""
        return Proof(kind="exact" if self.exact else "rounded", max_abs_error=self.largest)


def equal(rebuilt: Array, wanted: Array) -> Array:
    """Which values are the same, NaN too."""
    same: Array = (rebuilt == wanted) | (np.isnan(rebuilt) & np.isnan(wanted))
    return same


def difference(
    wanted: Rows,
    rebuilt: Rows,
    rows: int,
    columns: int,
    *,
    within: Within = equal,
) -> Difference:
    """Compare rows [0, rows) of two tables, chunk by chunk; `within` says which others are allowed."""
    parts = [
        _compared(wanted(at.start, at.stop), rebuilt(at.start, at.stop), at.start, within)
        for at in chunks(rows, columns)
    ]
    return Difference(
        differing=sum(part.differing for part in parts),
        rounded=sum(part.rounded for part in parts),
        largest=max((part.largest for part in parts), default=0.0),
        first_row=next((part.first_row for part in parts if part.first_row is not None), None),
        exact=all(part.exact for part in parts),
    )


def _compared(wanted: Array, rebuilt: Array, low: int, within: Within) -> Difference:
    """Compare one chunk, whose first row is `low`."""
    if same_bits(wanted, rebuilt):
        return _SAME
    if wanted.shape != rebuilt.shape:
        return Difference(differing=wanted.size, rounded=0, largest=float("inf"), first_row=low, exact=False)
    same = equal(rebuilt, wanted)
    wrong = ~(same | within(rebuilt, wanted))
    (rows,) = np.nonzero(wrong.reshape(len(wrong), -1).any(axis=1))
    differing = int(wrong.sum())
    return Difference(
        differing=differing,
        rounded=wanted.size - int(same.sum()) - differing,
        largest=float(np.where(same, 0.0, apart(rebuilt, wanted)).max()),
        first_row=low + int(rows[0]) if len(rows) else None,
        exact=False,
    )


_SAME = Difference(differing=0, rounded=0, largest=0.0, first_row=None, exact=True)


def same_bits(left: Array, right: Array) -> bool:
    """Whether two arrays are of one type and shape and equal bit for bit."""
    if left.dtype != right.dtype or left.shape != right.shape:
        return False
    bits = np.dtype(f"u{left.itemsize}")
    return np.array_equal(np.ascontiguousarray(left).view(bits), np.ascontiguousarray(right).view(bits))


def apart(left: Array, right: Array) -> Array:
    """Absolute differences; what is no number is infinitely far off."""
    wide = np.float32 if left.dtype == np.float32 else np.float64
    with np.errstate(all="ignore"):
        distance = np.abs(left.astype(wide, copy=False) - right.astype(wide, copy=False))
    far: Array = np.nan_to_num(distance, copy=False, nan=np.inf, posinf=np.inf)
    return far
