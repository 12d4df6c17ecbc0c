"""The 4-bit pack that lookups and linears share: what fits it, and the numbers that it holds."""

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from vkfuse.multiples import round_up
from vkfuse.options import Scales
from vkfuse.pte.enums import ScalarType
from vkfuse.tables import groups, nibbles
from vkfuse.tables.decisions import Refusal
from vkfuse.tables.floats import Array, chunks, halves, rounded
from vkfuse.tables.grid import Grid, dequantized
from vkfuse.tables.matmul import refused_activations
from vkfuse.tables.readers import Readers

LOOKUP_COLUMNS = 32  # runtime/graph/ops/impl/EmbeddingQ4gsw.cpp: embed_dim must be a multiple of 32
LINEAR_COLUMNS = 8  # patterns/weight_packing_utils.py: inner_dim_padding
LINEAR_ROWS = 8  # the matmul shaders read scales, sums and bias for eight outputs at a time
FLOAT_BYTES = 4


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Q4Pack:
    """A table as 4-bit bytes and scales.

    `packed` uint8 [padded rows, padded columns / 2]; `scales` [padded rows, padded columns / group_size], float32 or
    float16; `rows` and `columns` are the table's own, the rest is zeros. `is_linear_weight` is the operator's word for the
    layout that linears share. `how` names what had to be done.
    """

    packed: Array
    scales: Array
    group_size: int
    rows: int
    columns: int
    dtype: ScalarType
    how: tuple[str, ...]
    is_linear_weight: bool = True

    @property
    def parts(self) -> dict[str, Array]:
        """What is stored."""
        return {"q4": self.packed, "scales": self.scales}

    @property
    def padded_rows(self) -> int:
        """Rows that are stored."""
        return len(self.packed)

    @property
    def padded_columns(self) -> int:
        """Columns that are stored."""
        return int(self.packed.shape[1]) * 2

    def rebuild(self, low: int, high: int) -> Array:
        """Rows [low, high) as the shader computes them: ``float(nibble - 8) * float(scale)``, then the type's rounding."""
        values = nibbles.unpack(self.packed[low:high], low_first=self.is_linear_weight)
        return rounded(dequantized(values, self.scales[low:high])[:, : self.columns], self.dtype)

    def in_groups(self, size: int) -> "Q4Pack":
        """The same table with a scale for each `size` columns, which divides its groups."""
        if size == self.group_size:
            return self
        scales = groups.regroup(self.scales, self.group_size, size, self.padded_columns)
        how = (*self.how, *({"groups-split"} - {*self.how}))
        return replace(self, scales=scales, group_size=size, how=how)

    def by_scales(self, scales: Array) -> "Q4Pack":
        """The same values by other scales, [groups, padded rows] as a matmul stores them."""
        return replace(self, scales=scales.T)


class Packer(Protocol):
    """What packs a grid as `q4_pack` does."""

    def __call__(self, grid: Grid, readers: Readers, *, columns_multiple: int) -> Q4Pack | Refusal:
        """Return the pack, or why there is none."""


def lookup_pack(grid: Grid, readers: Readers, packer: Packer | None = None) -> Q4Pack | Refusal:
    """The pack for a lookup, or why it has none, or none that is smaller than one byte a weight.

    Its scales are in half precision where that is exact, else float32.
    """
    pack = (packer or q4_pack)(grid, readers, columns_multiple=LOOKUP_COLUMNS)
    if isinstance(pack, Refusal):
        return pack
    scales = lookup_scales(pack.scales, readers)
    half = ("half-scales",) if scales.dtype == np.float16 else ()
    pack = replace(pack, scales=scales, how=(*pack.how, *half))
    packed_row = pack.packed.shape[1] + pack.scales.shape[1] * pack.scales.itemsize
    int8_row = grid.columns + grid.scales.shape[1] * FLOAT_BYTES
    if packed_row > int8_row:
        return Refusal(
            code="padding-outgrows-int8",
            detail=f"a padded row takes {packed_row} bytes, one byte a weight takes {int8_row}",
            hint=f"quantize with a group size that divides {pack.padded_columns}",
        )
    return pack


def lookup_scales(scales: Array, readers: Readers) -> Array:
    """Scales as a lookup stores them: in half precision where that is exact, else float32."""
    half = None if readers.scales is Scales.FLOAT32 else halves(scales)
    return scales.astype(np.float32, copy=False) if half is None else half


def linear_pack(
    grid: Grid, readers: Readers, activations: ScalarType, packer: Packer | None = None
) -> Q4Pack | Refusal:
    """The pack for a matmul, of the tied lookup's shape where there is one, so that both store the same bytes."""
    refused = refused_activations(grid, activations)
    if refused is not None:
        return refused
    multiple = LOOKUP_COLUMNS if readers.looked_up else LINEAR_COLUMNS
    return (packer or q4_pack)(grid, readers, columns_multiple=multiple)


def linear_scales(pack: Q4Pack, activations: ScalarType) -> Array:
    """Scales as a matmul reads them: [groups, padded rows] in the activations' type."""
    return np.ascontiguousarray(rounded(pack.scales, activations).T)


def group_sums(pack: Q4Pack) -> Array:
    """Sum of each group of each output's weights, int32 [groups, padded rows]."""
    sums = np.zeros((pack.padded_columns // pack.group_size, pack.padded_rows), dtype=np.int32)
    for rows in chunks(pack.rows, pack.padded_columns):
        values = nibbles.unpack(pack.packed[rows])
        grouped = values.reshape(len(values), -1, pack.group_size)
        np.einsum("rgk->gr", grouped, dtype=np.int32, casting="safe", out=sums[:, rows])
    return sums


def q4_pack(grid: Grid, readers: Readers, *, columns_multiple: int) -> Q4Pack | Refusal:
    """The pack of `grid`, rows padded and the layout linear where a linear reads the same table, or why there is none."""
    if grid.scales.itemsize > FLOAT_BYTES:
        return Refusal(
            code="scales-wider-than-float32",
            detail=f"scales are {grid.scales.dtype}",
            hint="quantize with float32 scales",
        )
    values = grid.centred()
    if values is None:
        return Refusal(
            code="zero-point-not-integer", detail="a zero point is no integer", hint="quantize symmetrically"
        )
    if not nibbles.fits(values):
        return _does_not_fit(grid, values)
    grouping = groups.padded_group(grid.group_size, grid.columns, columns_multiple)
    if grouping is None:
        return Refusal(
            code="group-not-multiple-of-4",
            detail=f"group size {grid.group_size}: the shader loads one scale for four columns",
            hint="quantize with PerGroup(32), or any multiple of 4",
        )
    group, columns = grouping
    rows = _padded_rows(grid, readers)
    linear = readers.linear_layout
    return Q4Pack(
        packed=nibbles.pack(groups.pad(values, rows, columns), low_first=linear),
        scales=groups.pad(
            groups.regroup(grid.scales, grid.group_size, group, columns), rows, columns // group
        ),
        group_size=group,
        rows=grid.rows,
        columns=grid.columns,
        dtype=grid.dtype,
        how=(*grid.packed_how(rows, columns, group), *(() if linear else ("flat-layout",))),
        is_linear_weight=linear,
    )


def _does_not_fit(grid: Grid, values: Array) -> Refusal:
    low, high = int(values.min()), int(values.max())
    if grid.bits <= 4:
        return Refusal(
            code="asymmetric",
            detail=f"{grid.bits} bits with zero points: values less zero point reach {low}..{high}, outside -8..7",
            hint="quantize with MappingType.SYMMETRIC",
        )
    return Refusal(
        code="more-than-4-bits",
        detail=f"values reach {low}..{high}, outside -8..7",
        hint="quantize with weight_dtype=torch.int4",
    )


def _padded_rows(grid: Grid, readers: Readers) -> int:
    """A linear needs whole texels of rows; a lookup never reads the extra ones, so that both share one pack."""
    multiple = LINEAR_ROWS if readers.multiplied else 1
    return round_up(grid.rows, multiple)
