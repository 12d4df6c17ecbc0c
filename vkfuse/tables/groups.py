"""Groups of columns that share a scale: how a row is padded and how its scales are repeated."""

import math

import numpy as np

from vkfuse.tables.floats import Array

SHADER_VECTOR = 4  # the shaders load one scale for four neighbouring columns
_SCALE_BYTES = 4


def padded_group(group_size: int, columns: int, multiple: int) -> tuple[int, int] | None:
    """(group size, padded columns) that express a row in the fewest bytes, None where nothing does.

    The padded row is a multiple of `multiple`, the new group a multiple of four that divides it. The new group divides
    the old one, so that none spans two scales; the scale of a row of one group holds for its padding too.
    """
    shortest = math.ceil(columns / multiple) * multiple
    best: tuple[int, int] | None = None
    for padded in range(shortest, shortest + math.lcm(group_size, multiple), multiple):
        group = padded if group_size == columns else math.gcd(group_size, padded)
        if group % SHADER_VECTOR == 0 and (best is None or row_bytes(group, padded) < row_bytes(*best)):
            best = (group, padded)
        if padded // 2 > row_bytes(*best) if best is not None else padded > 2 * columns + group_size:
            break
    return best


def row_bytes(group_size: int, columns: int) -> int:
    """Bytes that a row of 4-bit values with float32 scales takes."""
    return columns // 2 + columns // group_size * _SCALE_BYTES


def regroup(scales: Array, old: int, new: int, padded: int) -> Array:
    """Scales [rows, columns / old] as [rows, padded / new]; padding repeats the last scale of its row."""
    repeated = scales.repeat(old // new, axis=1) if new < old else scales
    missing = padded // new - repeated.shape[1]
    return (
        np.concatenate([repeated, repeated[:, -1:].repeat(missing, axis=1)], axis=1) if missing else repeated
    )


def pad(matrix: Array, rows: int, columns: int) -> Array:
    """`matrix` with zero rows and columns appended up to [rows, columns]."""
    more_rows, more_columns = rows - matrix.shape[0], columns - matrix.shape[1]
    return np.pad(matrix, ((0, more_rows), (0, more_columns))) if more_rows or more_columns else matrix
