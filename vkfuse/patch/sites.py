"""The float tables of a file, and the calls that read them: lookups on the CPU and in Vulkan delegates, in all methods."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Final

from vkfuse.measure.stored import values_of
from vkfuse.measure.tables import TableRead, table_reads
from vkfuse.pages import digest
from vkfuse.pte.model import PteFile
from vkfuse.tables.floats import Numbers
from vkfuse.tables.found import LEAST_VALUES
from vkfuse.tables.readers import Consumer

_MATRIX: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """One read of a table, by the call that does it."""

    read: TableRead
    consumer: Consumer


@dataclass(frozen=True, slots=True, kw_only=True)
class FloatTable:
    """A matrix of floats with all that reads it; tables of equal bytes are one."""

    name: str
    numbers: Numbers
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


def float_tables(file: PteFile) -> tuple[FloatTable, ...]:
    """Return the tables of floats that lookups read, in the order of the file; what only a .ptd holds is none."""
    found: dict[tuple[object, ...], FloatTable] = {}
    for read, numbers in _matrices(file):
        site = Site(read=read, consumer=Consumer.GATHER)
        data = read.weight.data or memoryview(b"")
        key = (numbers.kind, *numbers.shape, digest(data))
        known = found.get(key)
        found[key] = FloatTable(
            name=read.weight.shown if known is None else known.name,
            numbers=numbers if known is None else known.numbers,
            nbytes=read.weight.nbytes,
            sites=(*(known.sites if known else ()), site),
        )
    return tuple(found.values())


def _matrices(file: PteFile) -> Iterator[tuple[TableRead, Numbers]]:
    """Yield the lookups of plain floats, with their numbers."""
    for read in table_reads(file):
        if read.reader.consumer != "gather" or read.reader.scales:
            continue
        numbers = values_of(read.weight)
        if numbers is None or not numbers.is_float or len(numbers.shape) != _MATRIX:
            continue
        if prod(numbers.shape) >= LEAST_VALUES:
            yield read, numbers
