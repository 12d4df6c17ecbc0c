"""The tables of a file that may become packs, and the calls that look them up, on the CPU and in delegates, in all methods.

A table is a matrix of floats, or integers that a CPU kernel dequantizes while it looks rows up. Lossy, and only
when asked, tables of floats are the integers that a setting makes of them.
"""

from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, replace
from math import prod
from typing import Final

from vkfuse.lossy import Lossy, Setting
from vkfuse.measure.kernel_tables import KernelTable, kernel_table
from vkfuse.measure.stored import factor_of, values_of
from vkfuse.measure.tables import FloatMatmul, TableRead, float_matmuls, table_reads
from vkfuse.pages import digest
from vkfuse.pte.enums import ScalarType
from vkfuse.pte.model import PteFile
from vkfuse.tables.floats import Array, Numbers
from vkfuse.tables.found import LEAST_VALUES, NoGrid, find_grid
from vkfuse.tables.grid import Grid
from vkfuse.tables.proven import WhatIf
from vkfuse.tables.quantize import quantized, what_if
from vkfuse.tables.readers import Consumer

_MATRIX: Final = 2
_BITS: Final = 8  # of a byte


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """One read of a table, by the call that does it."""

    read: TableRead | FloatMatmul
    consumer: Consumer


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class QuantizedTable:
    """What a setting makes of floats."""

    integers: Grid
    setting: Setting
    floats: Numbers

    @property
    def kind(self) -> ScalarType:
        """The type of what is read."""
        return self.floats.kind

    @property
    def shape(self) -> tuple[int, ...]:
        """(rows, columns)."""
        return self.floats.shape

    def rows(self, low: int, high: int) -> Array:
        """Rows [low, high) as they are wanted."""
        return self.integers.rebuild(low, high)

    def grid(self) -> Grid:
        """The integers and scales."""
        return self.integers


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table with all that reads it; those of equal bytes are one.

    `numbers` are floats, what a kernel dequantizes, or what floats were asked to become.
    """

    name: str
    numbers: Numbers | KernelTable | QuantizedTable
    nbytes: int
    sites: tuple[Site, ...]

    @property
    def consumers(self) -> frozenset[Consumer]:
        """What its sites do with it."""
        return frozenset(site.consumer for site in self.sites)

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        rows, columns = self.numbers.shape
        return rows, columns

    @property
    def bits(self) -> int:
        """Bits of a value as it is stored."""
        of = self.numbers
        return of.bits if isinstance(of, KernelTable) else of.kind.bytes * _BITS

    def grid(self) -> Grid | NoGrid:
        """The integers and scales that it is made of, or how close its floats came to such."""
        if isinstance(self.numbers, Numbers):
            return find_grid(self.numbers.rows, *self.shape, self.numbers.kind)
        return self.numbers.grid()


def file_tables(file: PteFile) -> tuple[Table, ...]:
    """Return the tables that lookups and matmuls read and no fused one, in the order of the file, lookups first.

    What only a .ptd holds is none.
    """
    found: dict[Hashable, Table] = {}
    for read, numbers in _reads(file):
        consumer = Consumer.MATMUL if isinstance(read, FloatMatmul) else Consumer.GATHER
        key = (type(numbers), numbers.kind, *numbers.shape, *_content(read))
        known = found.get(key)
        made = Table(
            name=read.weight.shown,
            numbers=numbers,
            nbytes=sum(constant.nbytes for constant in read.constants),
            sites=(Site(read=read, consumer=consumer),),
        )
        found[key] = made if known is None else replace(known, sites=(*known.sites, *made.sites))
    return tuple(found.values())


def _reads(file: PteFile) -> Iterator[tuple[TableRead | FloatMatmul, Numbers | KernelTable]]:
    yield from _looked_up(file)
    yield from _multiplied(file)


def _content(read: TableRead | FloatMatmul) -> Iterator[bytes]:
    yield from (digest(constant.data or memoryview(b"")) for constant in read.constants)


def _looked_up(file: PteFile) -> Iterator[tuple[TableRead, Numbers | KernelTable]]:
    """Yield the lookups that are not fused, with what they read."""
    for read in table_reads(file):
        if read.reader.consumer != "gather" or read.reader.group:
            continue
        numbers = kernel_table(read) if read.reader.scales else _floats(read)
        if numbers is not None and prod(numbers.shape) >= LEAST_VALUES:
            yield read, numbers


def _multiplied(file: PteFile) -> Iterator[tuple[FloatMatmul, Numbers]]:
    """Yield the products with matrices of floats in delegates."""
    for read in float_matmuls(file):
        numbers = factor_of(read)
        if numbers is not None and prod(numbers.shape) >= LEAST_VALUES:
            yield read, numbers


def _floats(read: TableRead) -> Numbers | None:
    numbers = values_of(read.weight)
    return numbers if numbers is not None and numbers.is_float and len(numbers.shape) == _MATRIX else None


def as_asked(tables: Iterable[Table], lossy: Lossy) -> tuple[Table, ...]:
    """The tables, those that `lossy` takes as integers. VkfuseError where it takes none; what is on a grid stays."""
    made = [_as_asked(table, lossy) for table in tables]
    lossy.require(table.name for table in made if isinstance(table.numbers, QuantizedTable))
    return tuple(made)


def _as_asked(table: Table, lossy: Lossy) -> Table:
    by_name = lossy.setting_of(table.name, looked_up=False)
    looked_up = lossy.quantize_embedding if Consumer.GATHER in table.consumers else None
    setting = by_name or looked_up
    if setting is None or not isinstance(table.numbers, Numbers) or isinstance(table.grid(), Grid):
        return table
    of = _quantized(table.numbers, setting)
    if of is None:
        return table
    if by_name is None and not lossy.tie:
        table = replace(table, sites=tuple(site for site in table.sites if site.consumer is Consumer.GATHER))
    return replace(table, numbers=of)


def settings_of(tables: Iterable[Table]) -> Iterator[WhatIf]:
    """Yield what each table of floats that are on no grid would take and lose at some settings."""
    for table in tables:
        of = table.numbers
        if isinstance(of, Numbers) and not isinstance(table.grid(), Grid):
            looked_up = Consumer.GATHER in table.consumers
            yield from what_if(table.name, of.rows(0, of.shape[0]), of.kind, looked_up=looked_up)


def _quantized(floats: Numbers, setting: Setting) -> QuantizedTable | None:
    rows = floats.rows(0, floats.shape[0])
    grid = quantized(rows, setting, floats.kind)
    return None if grid is None else QuantizedTable(integers=grid, setting=setting, floats=floats)
