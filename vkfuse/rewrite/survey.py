"""Find the tables of a program and each of their sites, from what the program computes."""

import math
import re
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import fx
from torch.export import ExportedProgram

from vkfuse.program.content import Bits
from vkfuse.program.parts import stored_targets
from vkfuse.program.tensors import tensor
from vkfuse.rewrite.constants import Constants
from vkfuse.rewrite.grids import (
    grid_had_back,
    lookup_readers,
    numbers_behind,
    read_arithmetic,
    weight_readers,
    weights_behind,
)
from vkfuse.rewrite.operands import operand
from vkfuse.rewrite.sites import READERS, Site, Table
from vkfuse.tables.grid import Grid
from vkfuse.tables.readers import Consumer

aten = torch.ops.aten
NAMED = "vkfuse.named"  # in a constant's metadata: the table that it was made of


@dataclass(frozen=True, slots=True, kw_only=True)
class _Use:
    """The operand of a consumer: which argument, and how the consumer reads it."""

    consumer: Consumer
    operand: fx.Node
    transposed: bool = False
    indices: fx.Node | None = None


def survey(exported: ExportedProgram, constants: Constants) -> tuple[Table, ...]:
    """All tables of `exported` in the order of their first site; sites with equal integer values share a table."""
    found: dict[Hashable, list[tuple[Site, fx.Node]]] = {}
    for site, source in _sites(exported, constants):
        found.setdefault(_identity(site, source, constants), []).append((site, source))
    names = stored_targets(exported.graph_signature)
    return tuple(
        Table(
            name=_table_name(sites[0][1], constants, names),
            identity=identity,
            sites=tuple(site for site, _ in sites),
        )
        for identity, sites in found.items()
    )


def float_lookups(exported: ExportedProgram, constants: Constants) -> Iterator[tuple[str, Site]]:
    """Lookups in constants that are no quantized tables, each with its table's name."""
    return _float_reads(exported, constants, frozenset({Consumer.GATHER}))


def float_reads(exported: ExportedProgram, constants: Constants) -> Iterator[tuple[str, Site]]:
    """Lookups in constants that are no quantized tables, and matmuls by them, each with its table's name."""
    return _float_reads(exported, constants, READERS - {Consumer.CONVOLVE})


def _float_reads(
    exported: ExportedProgram, constants: Constants, consumers: frozenset[Consumer]
) -> Iterator[tuple[str, Site]]:
    names = stored_targets(exported.graph_signature)
    for node in exported.graph.nodes:
        use = _known_use(node) if node.op == "call_function" and node not in constants else None
        if use is None or use.consumer not in consumers or use.operand not in constants:
            continue
        if not _sources(use, constants):
            site = _site(node, use, None)
            if not isinstance(grid_had_back(site, constants), Grid):
                yield _table_name(use.operand, constants, names), site


def _sites(exported: ExportedProgram, constants: Constants) -> Iterator[tuple[Site, fx.Node]]:
    """Each site with the node that dequantizes its table."""
    lookups = lookup_readers()
    grids: dict[fx.Node, Grid | None] = {}
    for node in exported.graph.nodes:
        if node in constants or node.op not in {"call_function", "output"}:
            continue
        if node.target in lookups:
            grid = lookups[node.target](node, constants)
            yield (
                Site(node=node, consumer=Consumer.GATHER, operand=None, grid=grid, indices=node.args[5]),
                node,
            )
            continue
        for use in _uses(node, constants):
            sources = _sources(use, constants) or _unknown(use, constants)
            if sources and sources[0] not in grids:
                grids[sources[0]] = _read_grid(sources[0], use, constants)
            readable = len(sources) == 1 and use.consumer in READERS
            site = _site(node, use, _of_its_size(grids[sources[0]], use) if readable else None)
            if site.grid is None and use.consumer in READERS:
                found = grid_had_back(site, constants)
                site = replace(site, grid=found if isinstance(found, Grid) else None)
            if sources or site.grid is not None:
                yield site, sources[0] if sources else use.operand


def _site(node: fx.Node, use: _Use, grid: Grid | None) -> Site:
    return Site(
        node=node,
        consumer=use.consumer,
        operand=use.operand,
        grid=grid,
        transposed=use.transposed,
        indices=use.indices,
    )


def _sources(use: _Use, constants: Constants) -> list[fx.Node]:
    """What dequantizes the operand: operators, or where these were decomposed the one stored integer matrix."""
    steps = constants.expression(use.operand)
    operators = [n for n in steps if n.target in weight_readers()]
    if operators or len(steps) == 1 or not use.operand.meta["val"].is_floating_point():
        return operators
    return weights_behind(use.operand, constants)


def _unknown(use: _Use, constants: Constants) -> list[fx.Node]:
    """What may hold the weights of a matmul, a lookup or a convolution in few bits, whose grid nothing tells."""
    read = use.consumer in READERS and use.operand.meta["val"].is_floating_point()
    return numbers_behind(use.operand, constants)[:1] if read else []


def _read_grid(source: fx.Node, use: _Use, constants: Constants) -> Grid | None:
    reader = weight_readers().get(source.target)
    return reader(source, constants) if reader is not None else read_arithmetic(use.operand, constants)


def _of_its_size(grid: Grid | None, use: _Use) -> Grid | None:
    """The grid of a table that a consumer reads as it is stored: not some of its rows, nor more than it has."""
    rows, *rest = use.operand.meta["val"].shape[:: -1 if use.transposed else 1]
    return grid if grid is not None and (grid.rows, grid.columns) == (rows, math.prod(rest)) else None


def _uses(node: fx.Node, constants: Constants) -> Iterator[_Use]:
    """The constant operands of `node`, each as what `node` does with it; a single number is no table."""
    known = _known_use(node)
    if known is not None and known.operand in constants:
        yield known
    for read in node.all_input_nodes:
        number = not getattr(read.meta.get("val"), "shape", ())
        if read in constants and not number and (known is None or read is not known.operand):
            gathers = any(_known_gather(step) for step in constants.expression(read))
            yield _Use(consumer=Consumer.CONSTANT_GATHER if gathers else Consumer.OTHER, operand=read)


def lookup_in(node: fx.Node) -> tuple[fx.Node, fx.Node] | None:
    """The table whose rows `node` looks up, and the indices that it does it by; None where it does something else."""
    if node.target in lookup_readers():
        return node.args[0], node.args[5]  # type: ignore[return-value]
    use = _known_use(node)
    return (use.operand, use.indices) if use is not None and use.indices is not None else None


def _known_gather(node: fx.Node) -> bool:
    use = _known_use(node)
    return use is not None and use.consumer is Consumer.GATHER


# Operators that look rows up: positions of the table and of the indices.
_GATHERS = {aten.embedding.default: (0, 1), aten.index_select.default: (0, 2)}

# Operators that convolve by a table: all sizes of it but the first are columns.
_CONVOLUTIONS = frozenset(
    {
        aten.conv1d.default,
        aten.conv1d.padding,
        aten.conv2d.default,
        aten.conv2d.padding,
        aten.convolution.default,
    }
)

# Operators that multiply by a table: its position, and whether it stands transposed, [columns, rows].
_MATMULS = {
    aten.linear.default: (1, False),
    aten.mm.default: (1, True),
    aten.matmul.default: (1, True),
    aten.addmm.default: (2, True),
}


def _known_use(node: fx.Node) -> _Use | None:
    """How `node` reads a table, None where it does something else."""
    if node.target in _MATMULS:
        position, transposed = _MATMULS[node.target]
        return _matmul(node.args[position], transposed=transposed) if not node.kwargs else None
    if node.target in _CONVOLUTIONS:
        return _Use(consumer=Consumer.CONVOLVE, operand=operand(node, "weight"))
    if node.target == aten.index.Tensor:
        indices = operand(node, "indices")
        return _gather(node.args[0], indices[0]) if len(indices) == 1 else None
    if node.target == aten.gather.default:
        return _row_gather(node)
    if node.target not in _GATHERS or (node.target == aten.index_select.default and not _along_rows(node)):
        return None
    table, position = _GATHERS[node.target]
    return _gather(node.args[table], node.args[position])


def _along_rows(node: fx.Node) -> bool:
    """Whether dimension 0 is the one that `node` takes elements along."""
    return operand(node, "dim") in {0, -operand(node, "x").meta["val"].ndim}


def _row_gather(node: fx.Node) -> _Use | None:
    """A gather along dimension 0 of whole rows: its index is one number a row, repeated over all columns."""
    table, spread = operand(node, "x"), operand(node, "index")
    if not _along_rows(node) or table.meta["val"].ndim != _MATRIX or spread.target not in _SPREADS:
        return None
    stood = spread.args[0]
    widths = [n.meta["val"].shape[1:] for n in (stood, spread, table)]
    if stood.target not in _STOOD or widths[0] != (1,) or widths[1] != widths[2]:
        return None
    indices = operand(stood, "x")
    same = indices.meta["val"].shape == spread.meta["val"].shape[:1]
    return _gather(table, indices) if same else None


_MATRIX = 2  # dimensions
_SPREADS = (aten.expand.default, aten.repeat.default)
_STOOD = (aten.unsqueeze.default, aten.view.default, aten.reshape.default)


def _gather(operand: object, indices: object) -> _Use | None:
    if isinstance(operand, fx.Node) and isinstance(indices, fx.Node) and _is_integer(indices):
        return _Use(consumer=Consumer.GATHER, operand=operand, indices=indices)
    return None


def _is_integer(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.dtype in {torch.int32, torch.int64}


def _matmul(operand: object, *, transposed: bool = False) -> _Use | None:
    if not isinstance(operand, fx.Node) or operand.meta["val"].ndim != 2:
        return None
    return _Use(consumer=Consumer.MATMUL, operand=operand, transposed=transposed)


def _identity(site: Site, source: fx.Node, constants: Constants) -> Hashable:
    """Content of the integer values, so that copies of one table are one table."""
    return constants.key(source) if site.grid is None else Bits(tensor(site.grid.values))


def _table_name(source: fx.Node, constants: Constants, names: dict[str, str]) -> str:
    """The module path of the weight that `source` reads, without what unwrapping a subclass added."""
    first = source if source.op == "placeholder" else source.args[0]
    steps = constants.expression(first) if isinstance(first, fx.Node) else []
    stored = [n.meta.get(NAMED, names[n.name]) for n in steps if n.name in names]
    return re.sub(r"\.parametrizations\.(\w+)\.original\d*$", r".\1", stored[0]) if stored else source.name
