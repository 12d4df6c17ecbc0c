"""Lossy, and only when asked: tables of floats as the integers that a setting makes of them, and what that loses."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from vkfuse.lossy import Lossy, Setting
from vkfuse.patch.sites import QuantizedTable, Table
from vkfuse.tables.floats import Numbers
from vkfuse.tables.grid import Grid
from vkfuse.tables.proven import WhatIf
from vkfuse.tables.quantize import quantized, what_if
from vkfuse.tables.readers import Consumer


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
