"""The grid of a table of floats, had back from its numbers: exactly, or how close it came."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from vkfuse.pte.enums import ScalarType
from vkfuse.tables.decisions import Refusal
from vkfuse.tables.floats import Array
from vkfuse.tables.grid import Grid
from vkfuse.tables.proof import Rows
from vkfuse.tables.steps import Order, Steps, distance, find_steps

LEAST_VALUES: Final = 1 << 12  # of a table: below that there is nothing to save
SMALLEST_GROUP: Final = 4  # columns; no shader reads a scale for fewer
CHUNK: Final = 1 << 17  # values that are looked at together: they stay in a core's cache
_BITS: Final = {
    4: SMALLEST_GROUP,
    8: 16,
    9: 16,  # bytes less zero points
}  # and the fewest columns of a group, below which 16-bit floats are as small
_BYTE: Final = 8
_BYTES: Final = np.iinfo(np.int8)
_SAMPLES: Final = (
    4,
    64,
)  # rows that are tried before the whole table: most floats are on no grid, which four show
_GROUPS: Final = 8  # that show at little cost whether floats may be on a grid
_FAR: Final = 0.05  # of a step
_SUSPECTS: Final = 64  # rows that failed, which a smaller group has to serve first
_FLOATS: Final = frozenset({ScalarType.HALF, ScalarType.BFLOAT16, ScalarType.FLOAT})


@dataclass(frozen=True, slots=True, kw_only=True)
class NoGrid:
    """How close floats came to a grid: `exact` of `groups` groups are on it, the others up to `off` of a step away."""

    bits: int
    group_size: int
    groups: int
    exact: int
    off: float

    def refusal(self) -> Refusal:
        """The same as a refusal."""
        found = f"{self.exact} of {self.groups} groups of {self.group_size} columns are on a grid of {self.bits} bits"
        others = f"up to {self.off:.2g} of a step off" if self.off else "off by the sign of zeros only"
        return Refusal(
            code="not-exact",
            detail=f"{found}, the others {others}" if self.groups else "no finite floats of 32 or 16 bits",
            hint="quantize the table before it is folded, or keep arithmetic away from it",
        )


def find_grid(read: Rows, rows: int, columns: int, kind: ScalarType) -> Grid | NoGrid:
    """The grid of a table of floats [rows, columns] of the type `kind`, with the largest groups that give its every bit.

    `read` returns rows, bfloat16 widened; groups are whole rows or divide them, down to four columns. Four bits are tried
    first, then eight, then eight with zero points.
    """
    search = _Search(read, rows, columns, kind)
    if kind in _FLOATS and rows and columns:
        for bits, smallest in _BITS.items():
            grid = search.grid(bits, smallest)
            if grid is not None:
                return grid
    return search.nearest


def group_sizes(columns: int, smallest: int = SMALLEST_GROUP) -> Iterator[int]:
    """The sizes that groups of a row may have, the largest first."""
    yield columns
    yield from (size for size in range(columns // 2, smallest - 1, -1) if columns % size == 0)


class _Search:
    """One table, searched for groups of one size after the other."""

    def __init__(self, read: Rows, rows: int, columns: int, kind: ScalarType) -> None:
        self._read, self._rows, self._columns, self._kind = read, rows, columns, kind
        self._all_rows = False  # whether `nearest` was seen in all of them
        self.nearest = NoGrid(bits=4, group_size=columns, groups=0, exact=0, off=float("inf"))

    def grid(self, bits: int, smallest: int) -> Grid | None:
        """The grid of integers of so many bits, None where there is none of groups of `smallest` columns or more."""
        sizes = self._plausible([*group_sizes(self._columns, smallest)], bits)
        suspects = [self._sample(count) for count in _SAMPLES] if sizes else []
        for size in sizes:
            if all(self._serves(rows, size, bits) for rows in suspects):
                found, failed = self._whole(size, bits)
                if found is not None:
                    return found
                suspects.append(failed)
        return None

    def _plausible(self, sizes: list[int], bits: int) -> list[int]:
        """The sizes whose smallest divisors some groups do not rule out: where these have no step, no multiple has one."""
        least = [size for size in sizes if not any(size % other == 0 for other in sizes if other < size)]
        row = self._sample(1)
        far = []
        for size in least:
            groups = row.reshape(-1, size)[:_GROUPS].T.astype(np.float32)
            off = distance(groups, bits, self._kind)
            if off > _FAR:
                far.append(size)
                self._note(bits, size, 0, groups.shape[1], off)
        return [size for size in sizes if not any(size % other == 0 for other in far)]

    def _sample(self, count: int) -> Array:
        """Rows from all over the table."""
        places = np.unique(np.linspace(0, self._rows - 1, min(count, self._rows)).astype(int))
        return np.concatenate([self._read(int(at), int(at) + 1) for at in places])

    def _serves(self, rows: Array, size: int, bits: int) -> bool:
        """Whether all groups of some rows have a step; else what is nearest is kept."""
        steps = self._steps(rows, size, Order(bits))
        if steps.found.all():
            return True
        self._note(bits, size, int(steps.found.sum()), len(steps.found), _off(steps))
        return False

    def _whole(self, size: int, bits: int) -> tuple[Grid | None, Array]:
        """The grid of all rows with groups of one size, or some rows that have none."""
        order = Order(bits)
        values = np.empty((self._rows, self._columns), order.dtype)
        scales = np.empty((self._rows, self._columns // size), np.float32)
        step = max(1, CHUNK // self._columns)
        exact, off, failed = 0, 0.0, []
        for low in range(0, self._rows, step):
            rows = self._read(low, min(low + step, self._rows))
            steps = self._steps(rows, size, order)
            values[low : low + step] = steps.integers.T.reshape(rows.shape)
            by_row = steps.found.reshape(len(rows), -1)
            scales[low : low + step] = steps.scales.reshape(by_row.shape)
            exact += int(by_row.sum())
            if not by_row.all():
                off = max(off, _off(steps))
                failed.append(rows[~by_row.all(axis=1)][:_SUSPECTS])
        if failed:
            self._note(bits, size, exact, scales.size, off)
            return None, np.concatenate(failed)[:_SUSPECTS]
        return self._made(values, scales, size) if bits <= _BYTE else self._shifted(
            values, scales, size
        ), values[:0]

    def _steps(self, rows: Array, size: int, order: Order) -> Steps:
        groups = np.ascontiguousarray(rows.reshape(-1, size).T.astype(np.float32, copy=False))
        return find_steps(groups, self._kind, order)

    def _note(self, bits: int, size: int, exact: int, groups: int, off: float) -> None:
        """Keep what came closest: what all rows show counts more; smaller groups, later, must come twice as close."""
        whole = groups * size == self._rows * self._columns
        if whole > self._all_rows or (whole == self._all_rows and off * 2 < self.nearest.off):
            self._all_rows = whole
            self.nearest = NoGrid(bits=bits, group_size=size, groups=groups, exact=exact, off=off)

    def _shifted(self, values: Array, scales: Array, size: int) -> Grid | None:
        """The grid of integers wider than a byte as bytes with zero points, None where a group spans too many."""
        groups = values.reshape(*scales.shape, size)
        low, high = groups.min(axis=2), groups.max(axis=2)
        if (high - low > _BYTES.max - _BYTES.min).any():
            return None
        points = np.where((low < _BYTES.min) | (high > _BYTES.max), _BYTES.min - low, 0).astype(np.int16)
        stored = (groups + points[:, :, None]).astype(np.int8).reshape(values.shape)
        return replace(self._made(stored, scales, size), zero_points=points)

    def _made(self, values: Array, scales: Array, size: int) -> Grid:
        low, high = int(values.min()), int(values.max())
        bits = next(b for b in range(1, 9) if -(1 << (b - 1)) <= low and high < 1 << (b - 1))
        return Grid(
            values=values,
            scales=scales,
            zero_points=None,
            group_size=size,
            quant_min=-(1 << (bits - 1)),
            quant_max=(1 << (bits - 1)) - 1,
            dtype=self._kind,
            found=True,
        )


def _off(steps: Steps) -> float:
    return float(steps.off[~steps.found].max())
