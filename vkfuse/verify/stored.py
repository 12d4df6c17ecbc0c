"""The tables of a file, rebuilt from its bytes as their operators read them; nothing of what wrote it is used."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final

import torch

from vkfuse.errors import FormatError
from vkfuse.measure.tables import ConstantTensor, TableRead
from vkfuse.pte.enums import VkDataType
from vkfuse.rewrite.prove import Rows, Within, apart, equal
from vkfuse.verify.tensors import scalar_dtype, tensor_of, vulkan_dtype
from vkfuse.verify.vulkan.embedding import scaled, unpack_nibbles

_HALF_STEP: Final = 2.0**-11 * (
    1 + 2.0**-8
)  # of a value: half the distance of two halves, and float32's own rounding
_LEAST_HALF: Final = 2.0**-25  # half the smallest half: how far off a tiny scale may be
_MOST_PACKED: Final = 8.0
_MOST_BYTE: Final = 256.0  # less its zero point


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A table of a file by blocks of rows, [rows, columns]; `where` is the call that reads it, `consumer` what that does.

    `raw` tables are stored as they are read. `within` says which values may differ from the program's, by the rounding of
    the types that the file stores.
    """

    operator: str
    where: str
    consumer: str
    rows: int
    columns: int
    read: Rows
    raw: bool
    is_float: bool
    within: Within
    weight: ConstantTensor
    scales: ConstantTensor | None = None


def stored_tables(reads: Iterable[TableRead]) -> Iterator[Stored]:
    """Yield the tables of `reads` that can be rebuilt, each once for the kind of operator that reads it."""
    seen = set()
    for read in reads:
        key = (read.operator, *(constant.name for constant in read.constants), read.group, read.low_first)
        table = None if key in seen else _stored(read)
        seen.add(key)
        if table is not None:
            yield table


def _stored(read: TableRead) -> Stored | None:
    """Return the table of one read, None where its bytes are elsewhere or make none."""
    weight = values_of(read.weight)
    if weight is None or weight.dim() != 2:
        return None
    if not read.reader.scales:
        return as_stored(read, weight) if read.reader.consumer == "gather" else None
    return _packed(read, weight)


def as_stored(read: TableRead, weight: torch.Tensor) -> Stored:
    """Return a table that is stored as it is read."""
    by_itself = _constant(read.weight, weight)
    return replace(by_itself, operator=read.operator, where=str(read.where), consumer=read.reader.consumer)


def _packed(read: TableRead, weight: torch.Tensor) -> Stored | None:
    """Return the float rows of a packed 4-bit table."""
    scales = None if read.scales is None else values_of(read.scales)
    group, rows, columns = read.group, weight.shape[0], weight.shape[1] * 2
    if scales is None or scales.dim() != 2 or weight.dtype is not torch.uint8 or not group or group < 1:
        return None
    by_row = scales.t() if read.reader.turned else scales
    if by_row.shape[0] < rows or columns == 0 or by_row.shape[1] <= (columns - 1) // group:
        return None
    low_first = read.low_first is not False

    def rebuilt(low: int, high: int) -> torch.Tensor:
        values = unpack_nibbles(weight[low:high], low_first=low_first)
        return scaled(values, by_row[low : min(high, rows)], group)

    return Stored(
        operator=read.operator,
        where=str(read.where),
        consumer=read.reader.consumer,
        rows=rows,
        columns=columns,
        read=rebuilt,
        raw=False,
        is_float=True,
        within=by_scales(scales.dtype, _MOST_PACKED),
        weight=read.weight,
        scales=read.scales,
    )


def gathered(values: Stored, scales: Stored, points: Stored | None) -> Stored | None:
    """Return the float rows of a table whose parts are gathered each by itself; None for shapes that do not fit."""
    groups = scales.columns
    parts = [part for part in (scales, points) if part is not None]
    if not groups or values.columns % groups or any(part.rows < values.rows for part in parts):
        return None

    def rebuilt(low: int, high: int) -> torch.Tensor:
        rows = values.read(low, high).float().reshape(high - low, groups, -1)
        if points is not None:
            rows = rows - points.read(low, high).float().unsqueeze(-1)
        return (rows * scales.read(low, high).float().unsqueeze(-1)).reshape(high - low, -1)

    within = by_scales(scales.read(0, 0).dtype, _MOST_BYTE)
    return replace(values, read=rebuilt, raw=False, is_float=True, within=within, scales=scales.weight)


def matrices(constant: ConstantTensor, rows: int, columns: int) -> Iterator[Stored]:
    """Yield a float constant of so many values as [rows, columns]: as it lies, and turned where it is [columns, rows]."""
    if math.prod(constant.dims) != rows * columns:
        return
    values = values_of(constant)
    if values is None or not values.is_floating_point():
        return
    yield _constant(constant, values.reshape(rows, columns))
    if constant.dims[-2:] == (columns, rows):
        yield _constant(constant, values.reshape(columns, rows).t())


def _constant(constant: ConstantTensor, values: torch.Tensor) -> Stored:
    """Return a matrix of a file by itself, whoever reads it."""
    return Stored(
        operator="constant",
        where=constant.shown,
        consumer="",
        rows=values.shape[0],
        columns=values.shape[1],
        read=lambda low, high: values[low:high],
        raw=True,
        is_float=values.is_floating_point(),
        within=cast_to(values.dtype),
        weight=constant,
    )


def values_of(constant: ConstantTensor) -> torch.Tensor | None:
    """View a constant's bytes as a tensor; None where they are not in the file, or of a type that torch has not."""
    if constant.data is None:
        return None
    convert: Callable[..., torch.dtype] = (
        vulkan_dtype if isinstance(constant.dtype, VkDataType) else scalar_dtype
    )
    try:
        dtype = convert(constant.dtype, constant.name)
    except FormatError:
        return None
    return tensor_of(constant.data, dtype, constant.dims, constant.dim_order)


def cast_to(dtype: torch.dtype) -> Within:
    """Allow what storing a value as `dtype` makes of it, to the bit."""

    def within(rebuilt: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        return equal(rebuilt, wanted.to(dtype).to(rebuilt.dtype))

    return within


def by_scales(dtype: torch.dtype, most: float) -> Within:
    """Allow what storing scales as `dtype` makes of a value, `most` being the largest integer that they multiply."""
    if dtype is not torch.float16:
        return equal

    def within(rebuilt: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        """Half a step of half precision, and two steps of a type that is no finer: both sides were rounded to it."""
        coarse = torch.finfo(wanted.dtype).eps if wanted.dtype.itemsize < torch.float32.itemsize else 0.0
        limit = wanted.float().abs()
        return apart(rebuilt, wanted) <= limit.mul_(_HALF_STEP + 2 * coarse).add_(_LEAST_HALF * most)

    return within
