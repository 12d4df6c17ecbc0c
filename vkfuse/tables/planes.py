"""Tables of four bits and more as 4-bit ones that share their scales: digits, and what is subtracted from each group.

A table ``(values - zero_points) * scales`` is the sum of its digits in base 16 times the same scales, less an offset for
each group. An offset meets the sum of its group's inputs, so that offsets are a 4-bit table too, of four columns a group:
three digits and a zero.
"""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from vkfuse.options import Scales
from vkfuse.pte.enums import ScalarType
from vkfuse.runtime.codes import Code
from vkfuse.tables import groups, nibbles
from vkfuse.tables.byte_rows import outgrown
from vkfuse.tables.decisions import Refusal
from vkfuse.tables.floats import Array, chunks, rounded
from vkfuse.tables.grid import Grid, dequantized
from vkfuse.tables.matmul import refused_activations
from vkfuse.tables.q4 import LINEAR_COLUMNS, LOOKUP_COLUMNS, Q4Pack, lookup_scales, q4_pack
from vkfuse.tables.readers import Readers

BASE: Final = 16
_SHARED: Final = ("scales-shared",)
FACTORS: Final = (1.0, 16.0, 256.0, 0.0)  # of the sum of a group, by the columns of its offset
_LEAST: Final = -8  # of a digit
_MOST: Final = 7 * (BASE**2 + BASE + 1)  # an offset that three digits hold
_LEAST_SHARED: Final = (
    64 << 10
)  # bytes of scales that are worth two operators on the CPU and a tensor that crosses more
_SMALLEST_GROUP: Final = 8  # of four columns are the offsets


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Planes:
    """A table as `digits`, the most significant first, whose scales are those of each, and `offsets` of their groups.

    `offsets` are packed [padded rows, groups * 4 / 2]. `how` names what had to be done.
    """

    digits: tuple[Q4Pack, ...]
    offsets: Array
    how: tuple[str, ...]

    @property
    def pack(self) -> Q4Pack:
        """The first digits, whose sizes are those of all."""
        return self.digits[0]

    def rebuild(self, low: int, high: int) -> Array:
        """Rows [low, high): integers first, then the scale and the type's rounding."""
        digits = [nibbles.unpack(pack.packed[low:high], low_first=True) for pack in self.digits]
        rows = whole(digits, nibbles.unpack(self.offsets[low:high], low_first=True), self.pack.group_size)
        rows *= self.pack.scales[low:high, :, None].astype(np.float32)
        return rounded(rows.reshape(len(rows), -1)[:, : self.pack.columns], self.pack.dtype)


def whole(digits: list[Array], offsets: Array, group: int) -> Array:
    """The integers [rows, groups, group] of digits [rows, columns] and of the digits of offsets [rows, groups * 4]."""
    values = np.zeros(digits[0].shape, np.float32)
    for digit in digits:
        values = values * BASE + digit
    taken = offsets.reshape(len(offsets), -1, len(FACTORS)).astype(np.float32) @ np.array(FACTORS, np.float32)
    rows: Array = values.reshape(len(values), -1, group) - taken[:, :, None]
    return rows


def planes(grid: Grid, readers: Readers, count: int) -> Planes | Refusal:
    """A grid as `count` digits for matmuls of float32, or why there are none."""
    values, points = grid.values, grid.points()
    if points is None or not values.size:
        return Refusal(
            code="zero-point-not-integer", detail="a zero point is no integer", hint="quantize symmetrically"
        )
    base = _base(values, points, count)
    if base is None or int(np.abs(points - base).max()) > _MOST:
        return Refusal(code="more-than-4-bits", detail=f"values reach {values.min()}..{values.max()}")
    grid = _even(grid, LOOKUP_COLUMNS if readers.looked_up else LINEAR_COLUMNS)
    if grid.group_size < _SMALLEST_GROUP:
        return Refusal(code="scales-by-group", detail=f"groups of {grid.group_size} columns, offsets of four")
    return _made(grid, base, points - base, readers, count)


def _base(values: Array, points: Array, count: int) -> int | None:
    """What is taken off all values, so that `count` digits hold them and the offsets that are left are small."""
    lowest = _LEAST * (BASE**count - 1) // (BASE - 1)
    least, most = int(values.max()) - lowest - BASE**count + 1, int(values.min()) - lowest
    return min(max(round(float(points.mean())), least), most) if least <= most else None


def _made(grid: Grid, base: int, points: Array, readers: Readers, count: int) -> Planes | Refusal:
    plain, packs = replace(grid, zero_points=None), list[Q4Pack]()
    for place in reversed(range(count)):
        multiple = LOOKUP_COLUMNS if readers.looked_up else LINEAR_COLUMNS
        pack = q4_pack(
            replace(plain, values=_digit(grid.values, base, place)), readers, columns_multiple=multiple
        )
        if isinstance(pack, Refusal):
            return pack
        packs.append(pack)
    first = packs[0]
    many = first.scales.shape[1]
    if first.group_size < _SMALLEST_GROUP or many % 2:
        return Refusal(code="scales-by-group", detail=f"{many} groups of {first.group_size} columns")
    spread = groups.regroup(points, grid.columns // points.shape[1], first.group_size, first.padded_columns)
    columns = np.zeros((*spread.shape, len(FACTORS)), np.int8)
    for place, factor in enumerate(FACTORS):
        if factor:
            columns[..., place] = _digit(spread, 0, place)
    offsets = groups.pad(columns.reshape(grid.rows, -1), first.padded_rows, many * len(FACTORS))
    split = ("bytes-split",) if count > 1 else ()
    how = (*first.how, *split, "offsets-summed")
    return Planes(digits=tuple(packs), offsets=nibbles.pack(offsets, low_first=True), how=how)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NibbleRows:
    """Rows of 4-bit integers that are looked up by scales of one, dequantized after: ``(values - zero_points) * scales``.

    `pack` has the values less a number that fits them in, as `zero_points` [rows, groups] have, None where all are zero
    then; these and `scales` are halves where that is exact. `turned`: the scales are stored [groups, rows].
    """

    pack: Q4Pack
    scales: Array
    zero_points: Array | None
    group_size: int
    turned: bool = False

    @property
    def factors(self) -> Array:
        """The scales as they are stored: where `turned` one column, a stretch of it for each group."""
        return self.scales.T.reshape(-1, 1) if self.turned else self.scales

    @property
    def parts(self) -> dict[str, Array]:
        """What is stored: 4-bit rows, scales, zero points where there are any, and the scales of one."""
        points = {} if self.zero_points is None else {"zero_points": self.zero_points}
        return {"q4": self.pack.packed, "scales": self.factors, **points, "ones": self.pack.scales}

    @property
    def columns(self) -> int:
        """Columns of the table."""
        return self.pack.columns

    @property
    def dtype(self) -> ScalarType:
        """The type of the table."""
        return self.pack.dtype

    @property
    def how(self) -> tuple[str, ...]:
        """Codes of what had to be done."""
        own = ("scales-gathered",) if self.zero_points is None else ("offsets-gathered",)
        return (*self.pack.how, *(_SHARED if self.turned else own))

    def rebuild(self, low: int, high: int) -> Array:
        """Rows [low, high), [high - low, columns]."""
        points = None if self.zero_points is None else self.zero_points[low:high]
        return rounded(
            dequantized(self.pack.rebuild(low, high), self.scales[low:high], points), self.pack.dtype
        )


def nibble_rows(grid: Grid, readers: Readers) -> NibbleRows | Refusal:
    """A grid of four bits with any zero points as it is looked up, or why it cannot be."""
    parts = shifted(grid)
    if parts is None:
        return Refusal(code="more-than-4-bits", detail="of no 16 integers with integer zero points")
    values, less = parts
    if grid.columns % LOOKUP_COLUMNS:
        return Refusal(
            code=Code.COLUMNS_NOT_MULTIPLE_OF_32, detail=f"{grid.columns} columns of groups with zero points"
        )
    ones = np.ones((grid.rows, 1), np.float16)
    plain = replace(grid, values=values, scales=ones, zero_points=None, group_size=grid.columns)
    pack = q4_pack(plain, readers, columns_multiple=LOOKUP_COLUMNS)
    if isinstance(pack, Refusal):
        return pack
    pack = _by_ones(pack, readers)
    scales, points = (lookup_scales(part, readers) for part in (grid.scales, less))
    rows = NibbleRows(
        pack=pack, scales=scales, zero_points=points if less.any() else None, group_size=grid.group_size
    )
    return outgrown(grid, rows.parts.values()) or rows


def rows_by_factors(pack: Q4Pack, factors: Array, readers: Readers) -> NibbleRows | Q4Pack | Refusal:
    """The pack of a lookup by the scales that a matmul stores, [groups, padded rows], or why not by these.

    Those of whole rows lie as a lookup reads them; of several groups each is gathered.
    """
    if pack.columns != pack.padded_columns or not np.array_equal(pack.scales.T, factors):
        return Refusal(
            code="scales-apart", detail="a matmul has the table padded, or by other scales", beside=True
        )
    if len(factors) == 1:
        return replace(pack, scales=factors.T, how=(*pack.how, *_SHARED))
    ones = _by_ones(pack, readers)
    saved = lookup_scales(pack.scales, readers).nbytes - ones.scales.nbytes
    if saved < _LEAST_SHARED:
        return Refusal(code="scales-apart", detail=f"sharing them saves {saved} bytes", beside=True)
    return NibbleRows(
        pack=ones,
        scales=factors.T,
        zero_points=None,
        group_size=pack.group_size,
        turned=True,
    )


def _by_ones(pack: Q4Pack, readers: Readers) -> Q4Pack:
    """The same integers by scales of one for whole rows, those of padding too."""
    kind = np.float32 if readers.scales is Scales.FLOAT32 else np.float16
    return replace(pack, scales=np.ones((pack.padded_rows, 1), kind), group_size=pack.padded_columns)


def shifted(grid: Grid) -> tuple[Array, Array] | None:
    """Values as integers of -8..7 and zero points less the same number, float32; None of more than 16 integers.

    Symmetric values are themselves, and not copied.
    """
    points = grid.points()
    base = None if points is None or not grid.values.size else _base(grid.values, points, 1)
    if points is None or base is None:
        return None
    values = grid.values.astype(np.int8, copy=False)  # modulo 256, as the difference is
    return values - np.array(base).astype(np.int8) if base else values, (points - base).astype(np.float32)


def float_planes(grid: Grid, readers: Readers, activations: ScalarType, count: int) -> Planes | Refusal:
    """`planes` for activations that are multiplied in float32, those of half precision too."""
    kind = ScalarType.FLOAT if activations is ScalarType.HALF else activations
    return refused_activations(grid, kind) or planes(grid, readers, count)


def _digit(values: Array, base: int, place: int) -> Array:
    """The digit of -8..7 that stands for ``BASE**place`` of integers [rows, columns] less `base`, int8."""
    digits = np.empty(values.shape, np.int8)
    for rows in chunks(*values.shape):
        left = values[rows].astype(np.int32) - base
        for _ in range(place):
            left = (left - _LEAST) // BASE  # less its lowest digit
        digits[rows] = (left - _LEAST) % BASE + _LEAST
    return digits


def _even(grid: Grid, multiple: int) -> Grid:
    """`grid` with an even number of groups: halves of them, where rows of so many columns have an odd one."""
    padded = groups.padded_group(grid.group_size, grid.columns, multiple)
    if padded is None or padded[1] // padded[0] % 2 == 0 or grid.group_size % 2:
        return grid
    return replace(grid, scales=grid.scales.repeat(2, axis=1), group_size=grid.group_size // 2)
