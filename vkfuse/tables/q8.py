"""The pack of one byte a weight that 8-bit matmuls read: what fits it, and the numbers that it holds."""

from dataclasses import dataclass

import numpy as np

from vkfuse.multiples import round_up
from vkfuse.pte.enums import ScalarType
from vkfuse.tables import groups
from vkfuse.tables.decisions import Refusal
from vkfuse.tables.floats import Array, rounded
from vkfuse.tables.grid import Grid, dequantized
from vkfuse.tables.matmul import refused_activations

_BYTE = np.iinfo(np.int8)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Q8Pack:
    """A table as whole bytes with a scale for each row.

    `values` int8 [padded rows, padded columns], both multiples of four, zeros beyond `rows` and `columns`, the table's own;
    `scales` [padded rows] of the activations' type. `how` names what had to be done.
    """

    values: Array
    scales: Array
    rows: int
    columns: int
    dtype: ScalarType
    how: tuple[str, ...]

    @property
    def parts(self) -> dict[str, Array]:
        """What is stored."""
        return {"q8": self.values, "scales": self.scales}

    @property
    def padded_rows(self) -> int:
        """Rows that are stored."""
        return len(self.values)

    @property
    def padded_columns(self) -> int:
        """Columns that are stored."""
        return int(self.values.shape[1])

    def rebuild(self, low: int, high: int) -> Array:
        """Rows [low, high) of the table by the scales as they are stored, [high - low, columns]."""
        values, scales = self.values[low:high, : self.columns], self.scales[low:high, None]
        return rounded(dequantized(values, scales), self.dtype)


def q8_pack(grid: Grid, activations: ScalarType) -> Q8Pack | Refusal:
    """The pack of a grid for a matmul, or why there is none."""
    refused = refused_activations(grid, activations)
    if refused is not None:
        return refused
    values, scales = _bytes_of(grid), grid.scales_by_row()
    if values is None:
        return Refusal(
            code="values-wider-than-a-byte",
            detail="values less zero point are no integers in -128..127",
            hint="quantize symmetrically",
        )
    if scales is None:
        return Refusal(
            code="scales-by-group",
            detail=f"groups of {grid.group_size}: the runtime's 8-bit matmul has one scale for an output",
            hint="quantize 8-bit linears with PerAxis(0)",
        )
    rows, columns = (round_up(size, groups.SHADER_VECTOR) for size in values.shape)
    return Q8Pack(
        values=np.ascontiguousarray(groups.pad(values, rows, columns)),
        scales=np.pad(rounded(scales, activations), (0, rows - grid.rows)),
        rows=grid.rows,
        columns=grid.columns,
        dtype=grid.dtype,
        how=grid.packed_how(rows, columns, grid.group_size),
    )


def _bytes_of(grid: Grid) -> Array | None:
    """The values less their zero points as int8, None where they do not fit."""
    values = grid.centred()
    if values is None or not values.size or values.min() < _BYTE.min or values.max() > _BYTE.max:
        return None
    return values.astype(np.int8, copy=False)
