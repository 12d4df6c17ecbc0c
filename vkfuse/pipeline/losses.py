"""What a run was asked to lose, done to the programs before they are planned, and what that cost."""

from collections.abc import Iterator
from dataclasses import replace

from torch.export import ExportedProgram

from vkfuse.options import Options, Scales
from vkfuse.pipeline.method import Method, Methods
from vkfuse.report.model import LossRow
from vkfuse.rewrite.quantize import HALF_SCALES, Changed, outputs_lost, quantize_floats, round_scales


def lossy(methods: Methods, options: Options) -> tuple[Methods, tuple[LossRow, ...]]:
    """The methods as `options` change them, and a row for each table and each output; raises VkfuseError for no table."""
    if not options.loses:
        return methods, ()
    made = [(method, *_changed(method.surveyed.exported, options)) for method in methods]
    options.lossy.require(of.name for _, _, tables in made for of in tables if of.how != HALF_SCALES)
    rows = [
        row
        for method, exported, tables in made
        for row in _rows(method.name, method.program.exported, exported, tables)
    ]
    return tuple(_with(method, exported) for method, exported, _ in made), tuple(rows)


def _with(method: Method, exported: ExportedProgram) -> Method:
    """`method` as if `exported` had been given."""
    repaired = replace(method.surveyed, exported=exported)
    return replace(
        method, program=replace(method.program, exported=exported), surveyed=repaired, prepared=repaired
    )


def _changed(exported: ExportedProgram, options: Options) -> tuple[ExportedProgram, tuple[Changed, ...]]:
    done: tuple[Changed, ...] = ()
    if options.lossy.anything:
        exported, done = quantize_floats(exported, options.lossy)
    if options.vulkan.scales is Scales.HALF:
        exported, rounded = round_scales(exported)
        done = (*done, *rounded)
    return exported, done


def _rows(
    method: str, before: ExportedProgram, after: ExportedProgram, tables: tuple[Changed, ...]
) -> Iterator[LossRow]:
    for table in tables:
        yield LossRow.of(method, "table", table.name, table.how, table.loss)
    for number, lost in enumerate(outputs_lost(before, after) if tables else ()):
        yield LossRow.of(method, "output", f"output {number}", "", lost)
