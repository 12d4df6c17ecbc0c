"""The 4-bit pack that lookups and linears share: what fits it, and the numbers that it holds."""

from dataclasses import dataclass

import torch

from vkfuse.rewrite.decisions import Refusal
from vkfuse.rewrite.grids import Grid
from vkfuse.rewrite.packing import groups, nibbles
from vkfuse.rewrite.survey import Consumer, Table

LOOKUP_COLUMNS = 32  # runtime/graph/ops/impl/EmbeddingQ4gsw.cpp: embed_dim must be a multiple of 32
LINEAR_COLUMNS = 8  # patterns/weight_packing_utils.py: inner_dim_padding
LINEAR_ROWS = 8  # the matmul shaders read scales, sums and bias for eight outputs at a time


@dataclass(frozen=True, slots=True, kw_only=True)
class Q4Pack:
    """A table as 4-bit bytes and scales.

    `packed` uint8 [padded rows, padded columns / 2]; `scales` [padded rows, padded columns / group_size], float32 or
    float16; `rows` and `columns` are the table's own, the rest is zeros. `is_linear_weight` is the operator's word for the
    layout that linears share. `how` names what had to be done.
    """

    packed: torch.Tensor
    scales: torch.Tensor
    group_size: int
    rows: int
    columns: int
    dtype: torch.dtype
    how: tuple[str, ...]
    is_linear_weight: bool = True

    @property
    def padded_rows(self) -> int:
        """Rows that are stored."""
        return self.packed.shape[0]

    @property
    def padded_columns(self) -> int:
        """Columns that are stored."""
        return self.packed.shape[1] * 2

    def rebuild(self, low: int, high: int) -> torch.Tensor:
        """Rows [low, high) as the shader computes them: ``float(nibble - 8) * float(scale)``, then the dtype's rounding."""
        scales = self.scales[low:high].float().unsqueeze(-1)
        values = nibbles.unpack(self.packed[low:high], low_first=self.is_linear_weight)
        values = values.float().reshape(*scales.shape[:2], self.group_size)
        return (values * scales).reshape(len(scales), -1)[:, : self.columns].to(self.dtype)


def q4_pack(grid: Grid, table: Table, *, columns_multiple: int) -> Q4Pack | Refusal:
    """The pack of `grid`, rows padded and the layout linear where a linear reads the same table, or why there is none."""
    if grid.scales.dtype.itemsize > torch.float32.itemsize:
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
    rows = _padded_rows(grid, table)
    linear = table.needs_linear_layout
    return Q4Pack(
        packed=nibbles.pack(groups.pad(values, rows, columns), low_first=linear),
        scales=groups.pad(
            groups.regroup(_stored(grid.scales), grid.group_size, group, columns), rows, columns // group
        ),
        group_size=group,
        rows=grid.rows,
        columns=grid.columns,
        dtype=grid.dtype,
        how=(*_how(grid, group, columns, rows), *(() if linear else ("flat-layout",))),
        is_linear_weight=linear,
    )


def _does_not_fit(grid: Grid, values: torch.Tensor) -> Refusal:
    low, high = (int(v) for v in torch.aminmax(values))
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


def _padded_rows(grid: Grid, table: Table) -> int:
    """A linear needs whole texels of rows; a lookup never reads the extra ones, so that both share one pack."""
    multiple = LINEAR_ROWS if Consumer.MATMUL in table.consumers else 1
    return -(-grid.rows // multiple) * multiple


def _stored(scales: torch.Tensor) -> torch.Tensor:
    """Scales in a dtype that the runtime reads: float16 stays, anything else is exact in float32."""
    return scales if scales.dtype == torch.float16 else scales.float()


def _how(grid: Grid, group: int, columns: int, rows: int) -> tuple[str, ...]:
    codes = {
        "zero-points-folded": grid.zero_points is not None and bool(grid.zero_points.any()),
        "columns-padded": columns != grid.columns,
        "groups-split": group < grid.group_size,
        "rows-padded": rows != grid.rows,
    }
    return tuple(code for code, used in codes.items() if used)
