"""How a table's numbers are made: integer values, scales and zero points."""

from dataclasses import dataclass
from typing import Final

import numpy as np

from vkfuse.pte.enums import ScalarType
from vkfuse.tables.floats import Array, rounded

_FARTHEST: Final = np.iinfo(np.int16).max // 2  # of a zero point


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Grid:
    """A 2-D table ``(values - zero_points) * scales``, one scale for `group_size` neighbouring columns of a row.

    `values` are integers [rows, columns]; `scales` [rows, columns / group_size] of a float type; `zero_points`
    of the shape of `scales`, integer or float, or None for zero. `quant_min` and `quant_max` are what the program
    declares, `dtype` is the float type that the program dequantizes to. `found`: had back from the floats.
    """

    values: Array
    scales: Array
    zero_points: Array | None
    group_size: int
    quant_min: int
    quant_max: int
    dtype: ScalarType
    found: bool = False

    @property
    def rows(self) -> int:
        """Number of rows (vocabulary of a lookup, outputs of a linear)."""
        return len(self.values)

    @property
    def columns(self) -> int:
        """Number of columns (embedding dimension, inputs of a linear)."""
        return int(self.values.shape[1])

    @property
    def bits(self) -> int:
        """Bits that the declared range takes."""
        return max(1, (self.quant_max - self.quant_min).bit_length())

    @property
    def has_zero_points(self) -> bool:
        """Whether any zero point is not zero."""
        return self.zero_points is not None and bool(self.zero_points.any())

    def is_scaled_like(self, other: "Grid") -> bool:
        """Whether a grid with the same values makes the same numbers of them."""
        plain = ("group_size", "quant_min", "quant_max", "dtype", "found")
        return (
            all(getattr(self, name) == getattr(other, name) for name in plain)
            and _equal(self.scales, other.scales)
            and _equal(self.zero_points, other.zero_points)
        )

    @property
    def how(self) -> tuple[str, ...]:
        """Codes of what it took to read the table."""
        return ("grid-found",) if self.found else ()

    def packed_how(self, rows: int, columns: int, group: int) -> tuple[str, ...]:
        """Codes of what a pack of padded rows and columns, in groups of so many, needed."""
        codes = {
            "zero-points-folded": self.has_zero_points,
            "columns-padded": columns != self.columns,
            "groups-split": group < self.group_size,
            "rows-padded": rows != self.rows,
        }
        return (*self.how, *(code for code, used in codes.items() if used))

    @property
    def parts(self) -> dict[str, Array]:
        """What is stored of a table of bytes: values, scales and, where there are any, zero points."""
        points = {} if self.zero_points is None else {"zero_points": self.zero_points}
        return {"int8": self.values, "scales": self.scales, **points}

    def rebuild(self, low: int, high: int) -> Array:
        """Rows [low, high) of the table, in float32 and rounded to `dtype`: [high - low, columns]."""
        values, scales, *points = (part[low:high] for part in self.parts.values())
        return rounded(dequantized(values, scales, *points), self.dtype)

    def scales_by_row(self) -> Array | None:
        """One scale for each row, [rows], None where groups of a row differ."""
        first = self.scales[:, 0]
        return first if bool((self.scales == first[:, None]).all()) else None

    def points(self) -> Array | None:
        """Zero points, int32 [rows, groups], or None where one is no integer, or out of all reach."""
        if self.zero_points is None:
            return np.zeros(self.scales.shape, np.int32)
        points = self.zero_points
        if points.size and not (points.min() >= -_FARTHEST and points.max() <= _FARTHEST):
            return None
        whole = points.astype(np.int32)
        return whole if np.array_equal(points, whole) else None

    def centred(self) -> Array | None:
        """`values - zero_points` as integers [rows, columns], or None where a zero point is no integer."""
        if not self.has_zero_points:
            return self.values
        points = self.points()
        if points is None:
            return None
        values = self.values.astype(np.int16, order="C")
        values.reshape(*points.shape, self.group_size)[...] -= points[:, :, None].astype(np.int16)
        return values


def _equal(one: Array | None, other: Array | None) -> bool:
    if one is None or other is None:
        return one is other
    return one.dtype == other.dtype and np.array_equal(one, other)


def dequantized(values: Array, scales: Array, points: Array | None = None) -> Array:
    """``(values - points) * scales`` in float32: values [rows, columns], scales and points [rows, groups]."""
    rows = values.astype(np.float32).reshape(*scales.shape, values.shape[1] // scales.shape[1])
    if points is not None:
        rows -= points[:, :, None].astype(np.float32, copy=False)
    rows *= scales[:, :, None].astype(np.float32, copy=False)
    return rows.reshape(values.shape)


def by_group(parameter: Array, rows: int, groups: int) -> Array | None:
    """Scales or zero points of any block shape as [rows, groups], None where they do not tile the table.

    What already has that shape is returned as it is.
    """
    if parameter.shape == (rows, groups):
        return parameter
    if parameter.size == 1:
        return np.full((rows, groups), parameter.reshape(-1)[0])
    if parameter.ndim == 1 and parameter.size == rows and groups == 1:
        return parameter.reshape(rows, 1)
    if parameter.ndim != 2 or not parameter.size or rows % parameter.shape[0] or groups % parameter.shape[1]:
        return None
    return parameter.repeat(rows // parameter.shape[0], axis=0).repeat(groups // parameter.shape[1], axis=1)
