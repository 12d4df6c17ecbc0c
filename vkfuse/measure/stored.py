"""The tables of a file, rebuilt from its bytes as their operators read them; nothing of what wrote it is used."""

import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from vkfuse.errors import FormatError
from vkfuse.measure.tables import ConstantTensor, FloatMatmul, TableRead
from vkfuse.pte.enums import ScalarType, VkDataType
from vkfuse.tables.floats import Array, Numbers, coarseness, is_float, numbers, rounded
from vkfuse.tables.planes import FACTORS, whole
from vkfuse.tables.proof import Rows, Within, apart, equal

_HALF_STEP: Final = 2.0**-11 * (
    1 + 2.0**-8
)  # of a value: half the distance of two halves, and float32's own rounding
_LEAST_HALF: Final = 2.0**-25  # half the smallest half: how far off a tiny scale may be
_MOST_PACKED: Final = 8.0
_MOST_BYTE: Final = 256.0  # less its zero point
_PAIR: Final = np.dtype("<u2")  # two neighbouring values, the first in the low byte


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A table of a file by blocks of rows, [rows, columns]; `where` is the call that reads it, `consumer` what that does.

    `raw` tables are stored as they are read. `within` says which values may differ from those of a program that computes in
    a type, by the rounding of the types that the file stores.
    """

    operator: str
    where: str
    consumer: str
    rows: int
    columns: int
    read: Rows
    raw: bool
    kind: ScalarType
    within: Callable[[ScalarType], Within]
    weight: ConstantTensor
    scales: ConstantTensor | None = None

    @property
    def is_float(self) -> bool:
        """Whether what is read are floats."""
        return is_float(self.kind)


def stored_tables(reads: Iterable[TableRead]) -> Iterator[Stored]:
    """Yield the tables of `reads` that can be rebuilt, each once for the kind of operator that reads it."""
    alone, families = _families(reads)
    for family in families:
        table = _of_planes(family)
        if table is not None:
            yield table
    seen = set()
    for read in alone:
        key = (read.operator, *(constant.name for constant in read.constants), read.group, read.low_first)
        table = None if key in seen else _stored(read)
        seen.add(key)
        if table is not None:
            yield table


def whole_tables(reads: Sequence[TableRead]) -> Iterator[Stored]:
    """Yield the tables of `reads`, those whose parts are gathered by the same indices as what these make together.

    Parts are read one after the other: bytes, scales and, where not all zero, zero points.
    """
    left = [*reads]
    factors = {read.weight.name: read.scales.name for read in reads if read.reader.turned and read.scales}
    while left:
        values, by = _stored(left[0]), factors.get(left[0].weight.name)
        parts = [table for read in left[1:3] if (table := _beside(left[0], read, by)) is not None]
        integers = values is not None and values.raw and not values.is_float
        whole = gathered(values, *parts[:2]) if values and integers and parts else None
        taken = 1 if whole is None else 1 + len(parts)
        yield from stored_tables(left[:1]) if whole is None else (whole,)
        left = left[taken:]


def _beside(values: TableRead, read: TableRead, factors: str | None) -> Stored | None:
    """Scales or zero points that are gathered with bytes, the scales `factors` of a matmul too; None for another table."""
    if values.where.around != read.where.around or values.indices is None:
        return None
    if values.indices != read.indices and read.weight.name != factors:
        return None
    table = _stored(read)
    return table if table is not None and table.raw and table.is_float else None


def _families(reads: Iterable[TableRead]) -> tuple[list[TableRead], list[list[TableRead]]]:
    """Reads by themselves, and those of one table: digits of a weight that share scales, then the offsets of its groups."""
    everything = [*reads]
    shared: dict[Hashable, dict[str, TableRead]] = {}
    for read in everything:
        if read.reader.turned and read.scales is not None:
            of_scales = shared.setdefault((read.where.around, read.scales.name), {})
            of_scales.setdefault(read.weight.name, read)
    families = [
        sorted(family.values(), key=_is_of_offsets)
        for family in shared.values()
        if {*map(_is_of_offsets, family.values())} == {True, False}
    ]
    taken = {read.weight.name for family in families for read in family}
    return [r for r in everything if r.weight.name not in taken or not r.reader.turned], families


def _is_of_offsets(read: TableRead) -> bool:
    return read.group == len(FACTORS)


def _of_planes(family: Sequence[TableRead]) -> Stored | None:
    """Return the table of digits, in the order of their calls, and offsets."""
    *digits, _ = family
    scales = None if digits[0].scales is None else values_of(digits[0].scales)
    weights = [weight for read in family if (weight := values_of(read.weight)) is not None]
    group, shapes = digits[0].group, {weight.shape for weight in weights[:-1]}
    if scales is None or not group or len(weights) < len(family) or len(shapes) != 1:
        return None
    ((rows, half),), by_row = shapes, scales.turned()
    many = by_row.shape[1]
    if half * 2 != many * group or weights[-1].shape != (rows, many * len(FACTORS) // 2):
        return None

    def rebuilt(low: int, high: int) -> Array:
        values = [_nibbles(weight.rows(low, high), low_first=True) for weight in weights]
        scaled = whole(values[:-1], values[-1], group)
        scaled *= by_row.rows(low, min(high, rows)).astype(np.float32)[:, :, None]
        return scaled.reshape(len(scaled), -1)

    return _dequantized(digits[0], rows, half * 2, rebuilt, by_scales(scales.kind, _MOST_BYTE))


def _stored(read: TableRead) -> Stored | None:
    """Return the table of one read, None where its bytes are elsewhere or make none."""
    weight = values_of(read.weight)
    if weight is None or len(weight.shape) != 2:
        return None
    if not read.reader.scales:
        return as_stored(read, weight) if read.reader.consumer == "gather" else None
    return _packed(read, weight) if read.reader.bits else _by_row(read, weight)


def factor_of(read: FloatMatmul) -> Numbers | None:
    """The matrix of floats of a product, [outputs, inputs]; None for a batch of several, and for other numbers."""
    weight = values_of(read.weight)
    if weight is None or not weight.is_float or len(weight.shape) < 2 or math.prod(weight.shape[:-2]) != 1:
        return None
    matrix = weight.shaped(*weight.shape[-2:])
    return matrix.turned() if read.turned else matrix


def as_stored(read: TableRead, weight: Numbers) -> Stored:
    """Return a table that is stored as it is read."""
    by_itself = _constant(read.weight, weight)
    return replace(by_itself, operator=read.operator, where=str(read.where), consumer=read.reader.consumer)


def _packed(read: TableRead, weight: Numbers) -> Stored | None:
    """Return the float rows of a packed 4-bit table."""
    scales = None if read.scales is None else values_of(read.scales)
    group, rows, columns = read.group, weight.shape[0], weight.shape[1] * 2
    if (
        scales is None
        or len(scales.shape) != 2
        or weight.kind is not ScalarType.BYTE
        or not group
        or group < 1
    ):
        return None
    by_row = scales.turned() if read.reader.turned else scales
    if by_row.shape[0] < rows or columns == 0 or by_row.shape[1] <= (columns - 1) // group:
        return None
    low_first = read.low_first is not False

    def integers(low: int, high: int) -> Array:
        return _nibbles(weight.rows(low, high), low_first=low_first)

    def rebuilt(low: int, high: int) -> Array:
        return _scaled(integers(low, high), by_row.rows(low, min(high, rows)), group)

    table = _dequantized(read, rows, columns, rebuilt, by_scales(scales.kind, _MOST_PACKED))
    if group < columns or (by_row.rows(0, rows) != 1).any():
        return table
    return replace(table, read=integers, raw=True, kind=ScalarType.CHAR, within=lambda _program: equal)


def _by_row(read: TableRead, weight: Numbers) -> Stored | None:
    """Return the float rows of a table of whole bytes with one scale a row."""
    scales = None if read.scales is None else values_of(read.scales)
    rows, columns = weight.shape
    if (
        scales is None
        or len(scales.shape) != 1
        or scales.shape[0] < rows
        or weight.kind is not ScalarType.CHAR
    ):
        return None

    def rebuilt(low: int, high: int) -> Array:
        by_row = scales.rows(low, min(high, rows)).astype(np.float32)[:, None]
        scaled: Array = weight.rows(low, high).astype(np.float32) * by_row
        return scaled

    return _dequantized(read, rows, columns, rebuilt, by_scales(scales.kind, _MOST_BYTE))


def _dequantized(
    read: TableRead, rows: int, columns: int, rebuilt: Rows, within: Callable[[ScalarType], Within]
) -> Stored:
    """Return a table whose operator makes floats [rows, columns] of it by its scales."""
    return Stored(
        operator=read.operator,
        where=str(read.where),
        consumer=read.reader.consumer,
        rows=rows,
        columns=columns,
        read=rebuilt,
        raw=False,
        kind=ScalarType.FLOAT,
        within=within,
        weight=read.weight,
        scales=read.scales,
    )


def gathered(values: Stored, scales: Stored, points: Stored | None = None) -> Stored | None:
    """Return the float rows of a table whose parts are gathered each by itself; None for shapes that do not fit."""
    scales = _turned(scales, values.rows)
    groups = scales.columns
    parts = [part for part in (scales, points) if part is not None]
    if not groups or values.columns % groups:
        return None

    def rebuilt(low: int, high: int) -> Array:
        rows = values.read(low, high).astype(np.float32).reshape(high - low, groups, -1)
        if points is not None:
            rows -= points.read(low, high)[:, :, None]
        rows *= scales.read(low, high)[:, :, None]
        return rows.reshape(high - low, -1)

    within = by_scales(scales.kind, _MOST_BYTE)
    rows = min(part.rows for part in (values, *parts))
    return replace(
        values, rows=rows, read=rebuilt, raw=False, kind=ScalarType.FLOAT, within=within, scales=scales.weight
    )


def _turned(scales: Stored, rows: int) -> Stored:
    """Scales that are one column, a stretch of it for each group, as [rows, groups]."""
    stored = values_of(scales.weight)
    if scales.columns != 1 or scales.rows == rows or not rows or scales.rows % rows or stored is None:
        return scales
    by_row = stored.shaped(scales.rows // rows, rows).turned()
    return replace(scales, rows=rows, columns=scales.rows // rows, read=by_row.rows)


def _nibbles(packed: Array, *, low_first: bool) -> Array:
    """[rows, D/2] bytes -> int8 [rows, D], values -8..7; not by what packs them, so that a fault there is seen here."""
    first, second = packed & np.uint8(15), packed >> np.uint8(4)
    even, odd = (first, second) if low_first else (second, first)
    pairs = odd.astype(_PAIR, order="C")
    pairs <<= np.uint16(8)
    pairs |= even
    values: Array = pairs.view(np.int8)
    values -= np.int8(8)
    return values


def _scaled(values: Array, scales: Array, group: int) -> Array:
    """int8 [rows, columns] times the scale of its group, [rows, groups] -> float32 [rows, columns]."""
    rows, columns = values.shape
    floats, factors = values.astype(np.float32), scales.astype(np.float32, copy=False)
    with np.errstate(all="ignore"):
        if columns == factors.shape[1] * group:
            floats.reshape(rows, factors.shape[1], group)[...] *= factors[:, :, None]
        else:
            floats *= factors[:, np.arange(columns) // group]
    return floats


def matrices(constant: ConstantTensor, rows: int, columns: int) -> Iterator[Stored]:
    """Yield a float constant of so many values as [rows, columns]: as it lies, and turned where it is [columns, rows].

    Rows that its readers spread, [..., 1, columns], are as many as are wanted.
    """
    wanted, has = rows * columns, math.prod(constant.dims)
    spread = constant.dims[-2:-1] == (1,) and has > 0 and wanted % has == 0
    if has != wanted and not spread:
        return
    values = values_of(constant)
    if values is None or not values.is_float:
        return
    if has != wanted:
        yield _spread(constant, values, rows, columns)
        return
    yield _constant(constant, values.shaped(rows, columns))
    if constant.dims[-2:] == (columns, rows):
        yield _constant(constant, values.shaped(columns, rows).turned())


def _spread(constant: ConstantTensor, values: Numbers, rows: int, columns: int) -> Stored:
    """Return [..., 1, columns] repeated along the dimension of 1 until there are [rows, columns]."""
    *batch, _, width = constant.dims
    count, once = math.prod(batch), values.shaped(math.prod(constant.dims))
    repeats = rows * columns // count

    def repeated(low: int, high: int) -> Array:
        at = np.arange(low * columns, high * columns)
        part: Array = once.rows(0, count * width)[at // repeats * width + at % width]
        return part.reshape(-1, columns)

    return replace(
        _constant(constant, values.shaped(count, width)), rows=rows, columns=columns, read=repeated
    )


def _constant(constant: ConstantTensor, values: Numbers) -> Stored:
    """Return a matrix of a file by itself, whoever reads it."""
    rows, columns = values.shape
    return Stored(
        operator="constant",
        where=constant.shown,
        consumer="",
        rows=rows,
        columns=columns,
        read=values.rows,
        raw=True,
        kind=values.kind,
        within=cast_to(values.kind),
        weight=constant,
    )


def values_of(constant: ConstantTensor) -> Numbers | None:
    """View a constant's bytes as numbers; None where they are not in the file, or of a type that numpy has not.

    FormatError where they are too few.
    """
    kind = constant.dtype.scalar if isinstance(constant.dtype, VkDataType) else constant.dtype
    if constant.data is None or kind is None:
        return None
    count = math.prod(constant.dims)
    if count * kind.bytes > len(constant.data):
        raise FormatError(f"{len(constant.data)} bytes for {count} values of {kind.label}")
    return numbers(constant.data, kind, constant.dims, constant.dim_order)


def cast_to(kind: ScalarType) -> Callable[[ScalarType], Within]:
    """Allow what storing a value as `kind` makes of it, to the bit."""

    def within(rebuilt: Array, wanted: Array) -> Array:
        return equal(rebuilt, rounded(wanted, kind).astype(rebuilt.dtype))

    return lambda _program: within


def by_scales(kind: ScalarType, most: float) -> Callable[[ScalarType], Within]:
    """Allow what storing scales as `kind` makes of a value, `most` being the largest integer that they multiply."""
    if kind is not ScalarType.HALF:
        return lambda _program: equal

    def of(program: ScalarType) -> Within:
        def within(rebuilt: Array, wanted: Array) -> Array:
            """Half a step of half precision, and two steps of a type that is no finer: both sides were rounded to it."""
            limit = np.abs(wanted.astype(np.float32))
            limit *= np.float32(_HALF_STEP + 2 * coarseness(program))
            limit += np.float32(_LEAST_HALF * most)
            allowed: Array = apart(rebuilt, wanted) <= limit
            return allowed

        return within

    return of
