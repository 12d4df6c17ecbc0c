"""Tables that a CPU kernel dequantizes while it looks rows up.

A value is ``(stored - zero point) * scale`` in float32, rounded to the type of the scales, which is the output's.
Source: kernels/quantized/cpu/embeddingxb.cpp and op_embedding.cpp of ExecuTorch 1.5.
"""

from dataclasses import dataclass
from typing import Final

from vkfuse.measure.stored import values_of
from vkfuse.measure.tables import TableRead
from vkfuse.pte.enums import ScalarType
from vkfuse.tables.floats import Array, Numbers
from vkfuse.tables.grid import Grid
from vkfuse.tables.nibbles import BYTE, unpacked

_BYTES: Final = frozenset({ScalarType.BYTE, ScalarType.CHAR})


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelTable:
    """A table of `bits` a value: `weight` [rows, bytes] as stored, `scales` and `points` [rows, groups]."""

    weight: Numbers
    bits: int
    scales: Numbers
    points: Numbers | None

    @property
    def kind(self) -> ScalarType:
        """The type of what is read."""
        return self.scales.kind

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        rows, width = self.weight.shape
        return rows, width * BYTE // self.bits

    def rows(self, low: int, high: int) -> Array:
        """Rows [low, high) as the kernel computes them."""
        return self._grid(low, high).rebuild(0, high - low)

    def grid(self) -> Grid:
        """The whole table as integers, scales and zero points."""
        return self._grid(0, self.shape[0])

    def _grid(self, low: int, high: int) -> Grid:
        groups = self.scales.shape[1]
        least = -(1 << (self.bits - 1)) if self.weight.kind is ScalarType.CHAR or self.bits < BYTE else 0
        return Grid(
            values=unpacked(self.weight.rows(low, high), self.bits),
            scales=self.scales.rows(low, high),
            zero_points=None if self.points is None else self.points.rows(low, high),
            group_size=self.shape[1] // groups,
            quant_min=least,
            quant_max=least + (1 << self.bits) - 1,
            dtype=self.kind,
        )


def kernel_table(read: TableRead) -> KernelTable | None:
    """The table of a CPU kernel's lookup, None where its constants are not in the file or make none."""
    weight = values_of(read.weight)
    scales = None if read.scales is None else _by_row(values_of(read.scales))
    points = [_by_row(values_of(constant)) for constant in read.also]
    if weight is None or len(weight.shape) != 2 or scales is None or None in points:
        return None
    table = KernelTable(
        weight=weight, bits=read.reader.bits or BYTE, scales=scales, points=points[0] if points else None
    )
    return table if _fits(table) else None


def _by_row(values: Numbers | None) -> Numbers | None:
    """Scales or zero points as [rows, groups]; None for another number of dimensions."""
    if values is None or len(values.shape) not in {1, 2}:
        return None
    return values.shaped(values.shape[0], 1) if len(values.shape) == 1 else values


def _fits(table: KernelTable) -> bool:
    """Whether the kernel takes the parts (check_embedding_xbit_args)."""
    rows, columns = table.shape
    groups = table.scales.shape[1]
    kinds = _BYTES if table.bits == BYTE else {ScalarType.BYTE}
    return (
        table.weight.kind in kinds
        and table.scales.is_float
        and table.scales.shape[0] == rows
        and groups > 0
        and columns > 0
        and columns % groups == 0
        and (table.points is None or table.points.shape == table.scales.shape)
    )
