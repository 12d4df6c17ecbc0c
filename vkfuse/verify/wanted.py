"""The tables of a program, as a file may store them: float rows of each use, and what a lookup may gather apart."""

from collections.abc import Iterator

import torch
from torch.export import ExportedProgram

from vkfuse.measure.audit import Wanted
from vkfuse.program.tensors import scalar_type, tensor
from vkfuse.rewrite.constants import Constants
from vkfuse.rewrite.prove import original_rows
from vkfuse.rewrite.sites import Site, Table
from vkfuse.rewrite.survey import float_lookups, survey
from vkfuse.tables.grid import Grid
from vkfuse.tables.proof import Rows
from vkfuse.tables.readers import Consumer


def wanted_tables(exported: ExportedProgram) -> Iterator[Wanted]:
    """Yield the tables of a program in the order of their use, quantized ones and those that lookups read as floats."""
    constants = Constants(exported)
    for table in survey(exported, constants):
        yield from _of_table(table, constants)
    for name, site in float_lookups(exported, constants):
        yield from _of_site(name, site, constants)


def _of_table(table: Table, constants: Constants) -> Iterator[Wanted]:
    """Yield the rows of each use, and the parts of a table that is looked up."""
    for site in table.sites:
        if site.consumer in {Consumer.GATHER, Consumer.MATMUL}:
            yield from _of_site(table.name, site, constants)
    grid = next((s.grid for s in table.sites if s.consumer is Consumer.GATHER and s.grid is not None), None)
    if grid is not None:
        yield from _parts(table.name, grid)


def _of_site(name: str, site: Site, constants: Constants) -> Iterator[Wanted]:
    """Yield the rows of one use, where they make a matrix."""
    shape = shape_of(site)
    if len(shape) == 2:
        yield wanted_of(name, site, constants)


def wanted_of(name: str, site: Site, constants: Constants) -> Wanted:
    """Return what one use reads, all axes but the first as columns."""
    rows, *rest = shape_of(site) or (1,)
    return Wanted(
        name=name,
        consumer=site.consumer.value,
        rows=rows,
        columns=torch.Size(rest).numel(),
        open=lambda: _matrix(site, constants),
        kind=scalar_type((site.node if site.operand is None else site.operand).meta["val"].dtype),
    )


def _matrix(site: Site, constants: Constants) -> Rows:
    """Return the rows of what a use reads, as a matrix."""
    rows = original_rows(site, constants)
    return rows if len(shape_of(site)) == 2 else lambda low, high: rows(low, high).reshape(high - low, -1)


def shape_of(site: Site) -> tuple[int, ...]:
    """Shape of what a use reads: of its operand, or of the table that it dequantizes by itself."""
    if site.operand is not None:
        shape = tuple(site.operand.meta["val"].shape)
        return shape[::-1] if site.transposed else shape
    return () if site.grid is None else (site.grid.rows, site.grid.columns)


def _parts(name: str, grid: Grid) -> Iterator[Wanted]:
    """Yield what a lookup in quantized rows gathers."""
    for part, value in (("values", grid.values), ("scales", grid.scales), ("zero points", grid.zero_points)):
        if value is not None:
            yield Wanted(
                name=name,
                consumer=Consumer.GATHER.value,
                rows=value.shape[0],
                columns=value.shape[1],
                open=lambda value=value: lambda low, high: value[low:high],  # type: ignore[misc]
                kind=scalar_type(tensor(value).dtype),
                part=part,
            )
