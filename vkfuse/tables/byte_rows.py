"""A table of one byte a weight, whose rows are gathered as they are and dequantized after."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from vkfuse.pte.enums import ScalarType
from vkfuse.tables.decisions import Refusal
from vkfuse.tables.floats import Array, rounded
from vkfuse.tables.grid import Grid


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ByteRows:
    """One byte a weight: `values` int8 or uint8 [rows, columns], `scales` and `zero_points` float32 [rows, groups].

    The table is ``(values - zero_points) * scales`` in float32, rounded to `dtype`; zero points that are all zero are None.
    """

    values: Array
    scales: Array
    zero_points: Array | None
    group_size: int
    dtype: ScalarType

    @property
    def arrays(self) -> tuple[Array, ...]:
        """Values, scales and, where not all zero, zero points."""
        points = () if self.zero_points is None else (self.zero_points,)
        return self.values, self.scales, *points

    def rebuild(self, low: int, high: int) -> Array:
        """Rows [low, high) of the table, [high - low, columns]."""
        rows = self.values[low:high].astype(np.float32).reshape(-1, self.scales.shape[1], self.group_size)
        if self.zero_points is not None:
            rows -= self.zero_points[low:high, :, None]
        rows *= self.scales[low:high, :, None]
        return rounded(rows.reshape(-1, self.values.shape[1]), self.dtype)


def byte_rows(grid: Grid) -> ByteRows | Refusal:
    """The rows of a grid as they are gathered, or why they cannot be."""
    if grid.values.dtype not in {np.dtype(np.int8), np.dtype(np.uint8)}:
        return Refusal(code="values-wider-than-a-byte", detail=f"values are {grid.values.dtype}")
    points = grid.zero_points if grid.has_zero_points else None
    return ByteRows(
        values=grid.values,
        scales=grid.scales.astype(np.float32, copy=False),
        zero_points=None if points is None else points.astype(np.float32),
        group_size=grid.group_size,
        dtype=grid.dtype,
    )


def gathered_rows(grid: Grid) -> ByteRows | Refusal:
    """The same in place of floats, which they must not outgrow."""
    rows = byte_rows(grid)
    return rows if isinstance(rows, Refusal) else outgrown(grid, rows.arrays) or rows


def outgrown(grid: Grid, arrays: Iterable[Array]) -> Refusal | None:
    """Why rows are not gathered in parts that take more bytes than the floats that they stand for."""
    taken, floats = sum(array.nbytes for array in arrays), grid.values.size * grid.dtype.bytes
    if taken <= floats:
        return None
    return Refusal(
        code="groups-outgrow-floats",
        detail=f"integers, scales and zero points of groups of {grid.group_size} take {taken:,} bytes, floats {floats:,}",
        hint="quantize in larger groups",
    )
