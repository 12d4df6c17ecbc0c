"""The file before the fused lookup, from the one just written: its looked-up tables in float, read on the CPU."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import IO, Final

import numpy as np
import torch
from torch.export import ExportedProgram
from torch.fx import Node

from vkfuse.mapping import map_open
from vkfuse.measure.stored import gathered, stored_tables
from vkfuse.measure.tables import TableRead, table_reads
from vkfuse.options import Options, VulkanOptions
from vkfuse.output import scratch
from vkfuse.pages import forget
from vkfuse.patch.cut import UntoldError
from vkfuse.patch.unfused import FloatTable, unfused
from vkfuse.pipeline.method import Method, Methods
from vkfuse.program.content import content
from vkfuse.pte.enums import ScalarType
from vkfuse.pte.model import PteFile
from vkfuse.pte.place import Place
from vkfuse.rewrite.decisions import Decision
from vkfuse.rewrite.operands import operand
from vkfuse.tables.decisions import Rung
from vkfuse.tables.floats import NUMPY, Array
from vkfuse.tables.readers import Consumer

_TYPES: Final = {torch.float32: ScalarType.FLOAT, torch.float16: ScalarType.HALF}
_BYTES: Final = 1 << 20  # of rows that are rebuilt at a time
_EMBEDDING: Final = torch.ops.aten.embedding.default
_VIEWS: Final[set[object]] = {torch.ops.aten.view.default, torch.ops.aten.reshape.default}


@contextmanager
def before_lookups(methods: Methods, pte: PteFile, options: Options) -> Iterator[PteFile]:
    """The file as a lowering with all looked-up tables folded writes it; its tables are in a temporary file meanwhile.

    UntoldError where only that lowering can tell.
    """
    _require_plain(options)
    lookups = _lookups(methods, pte)
    with scratch() as stream:
        yield unfused(pte, _written(lookups, stream))


def _require_plain(options: Options) -> None:
    """Raise UntoldError where more than the lookups is otherwise in the file before."""
    given = options.vulkan
    if given != VulkanOptions(lookup_layout=given.lookup_layout, scales=given.scales):
        raise UntoldError("options of the Vulkan delegate are not the default")


_Lookups = list[tuple[list[TableRead], FloatTable]]


def _lookups(methods: Methods, pte: PteFile) -> _Lookups:
    """Each lookup of a delegate, and of scales that it is followed by, with its table as it was, without its numbers."""
    known = {m.name: _tables(m) for m in methods}
    scales = {m.name: {*_scales(m)} for m in methods}
    found: _Lookups = []
    for read in table_reads(pte):
        if read.reader.consumer != "gather" or read.where.delegate is None:
            continue
        if found and read.weight.name in scales[read.where.method]:
            found[-1][0].append(read)
            continue
        table = known[read.where.method].get(read.weight.name)
        if table is None:
            raise UntoldError(f"{read.weight.shown} is looked up by {read.operator}, and was no float table")
        found.append(([read], table))
    return found


def _tables(method: Method) -> dict[str, FloatTable]:
    """What lookups of a method read before, by the SHA-256 of what they read now."""
    found: dict[str, FloatTable] = {}
    for key, table in (*_packed(method), *_floats(method.surveyed.exported)):
        if found.setdefault(key, table) != table:
            raise UntoldError("a table is looked up in two ways")
    return found


def _packed(method: Method) -> Iterator[tuple[str, FloatTable]]:
    """Yield the tables of fused lookups, folded."""
    for plan in method.plans:
        for decision in plan.decisions:
            if decision.site.consumer is Consumer.GATHER and decision.rung is not Rung.FOLDED:
                yield content(decision.constants[0])[0], _folded(plan.table.name, decision)


def _scales(method: Method) -> Iterator[str]:
    """Yield what the scales of fused lookups that are gathered by themselves stand under."""
    for decision in (decision for plan in method.plans for decision in plan.decisions):
        if decision.proposal is not None and "ones" in decision.proposal.stored:
            yield content(decision.proposal.stored["scales"])[0]


def _folded(name: str, decision: Decision) -> FloatTable:
    grid = decision.site.grid
    if decision.rung is not Rung.Q4 or grid is None:
        raise UntoldError(f"{name} is in no fused lookup")
    return _table(decision.site.node, grid.rows, grid.columns, parameter=False)


def _floats(exported: ExportedProgram) -> Iterator[tuple[str, FloatTable]]:
    """Yield the tables of floats that lookups read as they are."""
    signature = exported.graph_signature
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    for node in exported.graph.find_nodes(op="call_function", target=_EMBEDDING):
        weight = operand(node, "weight")
        tensor = exported.state_dict.get(names.get(weight.name, ""))
        if tensor is not None:
            rows, columns = tensor.shape
            yield content(tensor)[0], _table(node, rows, columns, parameter=weight.meta["val"].requires_grad)


def _table(node: Node, rows: int, columns: int, *, parameter: bool) -> FloatTable:
    """The table that a lookup of the program reads."""
    scalar_type = _TYPES.get(node.meta["val"].dtype)
    if scalar_type is None or node.target is not _EMBEDDING:
        raise UntoldError(f"{node.name} is no lookup of floats")
    return FloatTable(
        rows=rows,
        columns=columns,
        scalar_type=scalar_type,
        padding=operand(node, "padding_idx"),
        parameter=parameter,
        viewed=operand(node, "indices").target in _VIEWS,
    )


def _written(lookups: _Lookups, stream: IO[bytes]) -> dict[Place, FloatTable]:
    """Write each table once, rebuilt from the bytes of the file."""
    extents: dict[tuple[str, FloatTable], slice] = {}
    for reads, was in lookups:
        name = reads[0].weight.name
        if (name, was) not in extents:
            start = stream.tell()
            _write_rows(reads, was, stream)
            extents[name, was] = slice(start, stream.tell())
    stream.flush()
    stream.seek(0)
    data = map_open(stream, "tables")
    made = {
        (name, was): replace(was, numbers=_numbers(data[extent], was))
        for (name, was), extent in extents.items()
    }
    return {read.where: made[read.weight.name, was] for (read, *_), was in lookups}


def _numbers(data: memoryview, table: FloatTable) -> Array:
    return np.frombuffer(data, NUMPY[table.scalar_type]).reshape(table.rows, table.columns)


def _write_rows(reads: list[TableRead], was: FloatTable, stream: IO[bytes]) -> None:
    step = max(1, _BYTES // (was.columns * 4))
    values, *scales = (table for read in reads for table in stored_tables([read]))
    for stored in (gathered(values, by) for by in scales) if scales else (values,):
        if stored is None:
            raise UntoldError(f"{values.weight.shown} is in no fused lookup")
        for low in range(0, was.rows, step):
            rows = stored.read(low, min(low + step, was.rows))[:, : was.columns]
            stream.write(np.ascontiguousarray(rows, NUMPY[was.scalar_type]).data)
        forget(stored.weight.data or memoryview(b""))
