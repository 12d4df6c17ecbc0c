"""The tables, lookups and shaders that a file holds as rows of the report, as far as the bytes tell.

A table has the name that the file records; else it is named after its content, the first digits of its key in the
named data, or after the place where it stands. Tables of one name are one.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

from vkfuse.lint.operands import operands_of
from vkfuse.measure.shaders import stored_shaders
from vkfuse.measure.tables import TableRead, constant_name, read_as_tables, table_reads
from vkfuse.measure.weights import shape_of
from vkfuse.pte.delegates import VulkanDelegate, vulkan_delegates
from vkfuse.pte.model import PteFile
from vkfuse.pte.vulkan import VkTensor, vulkan_graphs
from vkfuse.quantities import bits_per_weight
from vkfuse.report.model import RUNGS, EmbeddedShader, LookupRow, Rung, TableRow
from vkfuse.runtime.operators.lookup import FUSED, dispatches
from vkfuse.runtime.versions import lines_with

_FUSED: Final = 4  # bits of a pack that Vulkan reads as it is
_INTEGERS: Final = ("int8", "uint8")


def tables_of(pte: PteFile) -> tuple[TableRow, ...]:
    """Return a row for each table that a lookup or a quantized linear reads, the largest first."""
    return rows_of(table_reads(pte))


def rows_of(reads: Iterable[TableRead]) -> tuple[TableRow, ...]:
    """Return the rows of tables by their reads, the largest first."""
    found: dict[str, _Read] = {}
    for read in read_as_tables(reads):
        found[read.weight.shown] = _together(found.get(read.weight.shown), _read(read))
    rows = map(_weighed, found.values())
    return tuple(sorted(rows, key=lambda row: (-row.bytes_after, row.name)))


def _weighed(read: "_Read") -> TableRow:
    """Return the row with the bytes of all its constants."""
    size = sum(read.parts.values())
    bits = bits_per_weight(size, math.prod(read.row.shape))
    return replace(read.row, bytes_after=size, bits_per_weight=bits)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Read:
    """A table as its readers so far have it; `parts` are the bytes of its constants, each once, by where they stand."""

    row: TableRow
    parts: Mapping[str, int]


def _together(known: _Read | None, read: _Read) -> _Read:
    """Return a table that two operators read."""
    if known is None:
        return read
    worse = max(known.row, read.row, key=lambda row: RUNGS.index(row.rung))
    row = replace(
        worse,
        consumers=tuple(dict.fromkeys((*known.row.consumers, *read.row.consumers))),
        methods=tuple(dict.fromkeys((*known.row.methods, *read.row.methods))),
        group_size=min(filter(None, (known.row.group_size, read.row.group_size)), default=None),
        how=tuple(dict.fromkeys((*known.row.how, *read.row.how))),
    )
    return _Read(row=row, parts={**known.parts, **read.parts})


def _read(read: TableRead) -> _Read:
    """Return one read as a row."""
    weight = read.weight
    bits = read.reader.bits or weight.bits
    row = TableRow(
        name=weight.shown,
        shape=shape_of(read),
        bits=bits,
        group_size=read.group,
        consumers=(read.reader.consumer,),
        rung=_rung(read, bits),
        how=("flat-layout",) if read.low_first is False else (),
        reason="",
        bytes_before=None,
        bytes_after=0,
        proof=None,
        methods=(read.where.method,),
    )
    return _Read(row=row, parts={constant.name: constant.nbytes for constant in read.constants})


def _rung(read: TableRead, bits: int) -> Rung:
    """Return the rung that the way of reading amounts to."""
    if read.reader.consumer == "dequantize":
        return "untouched"
    if bits == _FUSED and read.reader.group:
        return "q4"
    if read.weight.dtype.label not in _INTEGERS:
        return "untouched"
    return "q8" if read.reader.scales else "gathered"


def lookups_of(pte: PteFile, names: Mapping[str, str]) -> tuple[LookupRow, ...]:
    """Return a row for each fused lookup, in the order of the file; `names` of tables by their keys' first digits."""
    return tuple(row for delegate in vulkan_delegates(pte).values() for row in _lookups(delegate, names))


def _lookups(delegate: VulkanDelegate, names: Mapping[str, str]) -> Iterator[LookupRow]:
    graph, where = delegate.graph, delegate.place
    for call in graph.chain:
        weight = graph.values[call.args[0]] if call.name == FUSED and call.args else None
        if isinstance(weight, VkTensor) and weight.constant:
            shaders = dispatches(operands_of(delegate, call), lines_with(FUSED))
            shown = constant_name(graph, weight, where)
            name = names.get(shown, shown)
            yield LookupRow(table=name, method=where.method, where=where, shaders=shaders)


def embedded_shaders(pte: PteFile) -> tuple[EmbeddedShader, ...]:
    """Return the shaders that delegates carry, one row for equal ones."""
    found: dict[tuple[str, str, int], EmbeddedShader] = {}
    for place, graph in vulkan_graphs(pte).items():
        for stored in stored_shaders(graph):
            name, sha256, size = key = (stored.name, stored.sha256, stored.constant.length)
            where = (*found[key].where, place) if key in found else (place,)
            found[key] = EmbeddedShader(
                name=name, sha256=sha256, bytes=size, where=tuple(dict.fromkeys(where))
            )
    return tuple(found.values())
