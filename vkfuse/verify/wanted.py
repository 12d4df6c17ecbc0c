"""The tables of a program, as a file may store them: float rows of each use, and what a lookup may gather apart."""

from collections.abc import Iterator

import torch
from torch.export import ExportedProgram

from vkfuse.measure.audit import Wanted
from vkfuse.program.tensors import scalar_type, tensor
from vkfuse.rewrite.constants import Constants
from vkfuse.rewrite.prove import original_rows
from vkfuse.rewrite.sites import READERS, Site, Table
from vkfuse.rewrite.survey import float_lookups, survey
from vkfuse.tables.grid import Grid
from vkfuse.tables.patches import as_patches
from vkfuse.tables.planes import shifted
from vkfuse.tables.proof import Rows
from vkfuse.tables.readers import Consumer

_MATRIX = 2  # dimensions


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
        if site.consumer in READERS:
            yield from _of_site(table.name, site, constants)
    grid = next((s.grid for s in table.sites if s.consumer is Consumer.GATHER and s.grid is not None), None)
    if grid is not None:
        yield from _parts(table.name, grid)


def _of_site(name: str, site: Site, constants: Constants) -> Iterator[Wanted]:
    """Yield the rows of one use, where they make a matrix."""
    if site.consumer is Consumer.CONVOLVE or len(shape_of(site)) == _MATRIX:
        yield wanted_of(name, site, constants, patches=True)


def wanted_of(name: str, site: Site, constants: Constants, *, patches: bool) -> Wanted:
    """Return what one use reads, all axes but the first as columns; of a convolution in the order of `patches`."""
    rows, *rest = shape_of(site) or (1,)
    turned = patches and site.consumer is Consumer.CONVOLVE
    return Wanted(
        name=name,
        consumer=site.consumer.value,
        rows=rows,
        columns=torch.Size(rest).numel(),
        open=lambda: _patches(site, constants) if turned else original_rows(site, constants),
        kind=scalar_type((site.node if site.operand is None else site.operand).meta["val"].dtype),
    )


def _patches(site: Site, constants: Constants) -> Rows:
    """Return the rows of what a convolution reads, in the order of its patches."""
    rows, (_, _, *kernel) = original_rows(site, constants), shape_of(site)
    return lambda low, high: as_patches(rows(low, high), tuple(kernel))


def shape_of(site: Site) -> tuple[int, ...]:
    """Shape of what a use reads: of its operand, or of the table that it dequantizes by itself."""
    if site.operand is not None:
        shape = tuple(site.operand.meta["val"].shape)
        return shape[::-1] if site.transposed else shape
    return () if site.grid is None else (site.grid.rows, site.grid.columns)


def _parts(name: str, grid: Grid) -> Iterator[Wanted]:
    """Yield what a lookup in quantized rows gathers."""
    parts = (("values", grid.values), ("scales", grid.scales), ("zero points", grid.zero_points))
    for part, value in (*parts, *(("digits", of) for of in shifted(grid) or ())):
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
