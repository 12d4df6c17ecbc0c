"""A table of one byte a weight, whose rows are gathered as they are and dequantized after."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from vkfuse.tables.decisions import Refusal
from vkfuse.tables.floats import Array
from vkfuse.tables.grid import Grid


def gathered_rows(grid: Grid) -> Grid | Refusal:
    """The grid as its rows are gathered, its other parts in float32 and no zero points that are all zero.

    Or why not: in place of floats, which they must not outgrow.
    """
    if grid.values.dtype not in {np.dtype(np.int8), np.dtype(np.uint8)}:
        return Refusal(code="values-wider-than-a-byte", detail=f"values are {grid.values.dtype}")
    points = grid.zero_points if grid.has_zero_points else None
    rows = replace(
        grid,
        scales=grid.scales.astype(np.float32, copy=False),
        zero_points=None if points is None else points.astype(np.float32),
    )
    return outgrown(grid, rows.parts.values()) or rows


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
