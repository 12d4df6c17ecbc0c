"""What a run was asked to lose, done to the programs before anything else, and what that cost."""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Final

from torch.export import ExportedProgram

from vkfuse.errors import VkfuseError
from vkfuse.lossy import parse_setting
from vkfuse.options import Options, Scales
from vkfuse.program.load import Program
from vkfuse.report.model import LossRow, WhatIfRow
from vkfuse.rewrite.quantize import Changed, outputs_lost, quantize_floats, round_scales, what_if
from vkfuse.tables.quantize import Loss

_SETTINGS: Final = tuple(map(parse_setting, ("int4:32", "int4:64", "int4:128", "int8")))


def lossy(
    programs: Mapping[str, Program], options: Options
) -> tuple[dict[str, Program], tuple[LossRow, ...]]:
    """The programs as `options` change them, and a row for each table and each output; raises VkfuseError for no table."""
    if not options.loses:
        return dict(programs), ()
    made = {name: _changed(program.exported, options) for name, program in programs.items()}
    if options.lossy.anything and not any(tables for _, tables in made.values()):
        raise VkfuseError(
            "no table of floats is meant by --quantize-embedding or --quantize",
            hint="vkfuse inspect names the tables; a group must divide the columns of one",
        )
    rows = [
        row
        for name, (exported, tables) in made.items()
        for row in _rows(name, programs[name].exported, exported, tables)
    ]
    changed = {name: replace(programs[name], exported=exported) for name, (exported, _) in made.items()}
    return changed, tuple(rows)


def table_settings(programs: Mapping[str, Program]) -> tuple[WhatIfRow, ...]:
    """A row for each float table of the programs at each of some settings, with the option that would do it."""
    found = {
        (row.name, str(row.setting)): row
        for program in programs.values()
        for row in what_if(program.exported, _SETTINGS)
    }
    return tuple(
        WhatIfRow(
            table=row.name,
            setting=str(row.setting),
            bytes_before=row.before,
            bytes_after=row.after,
            relative_rms=row.loss.relative_rms,
            option=f"--quantize '{re.escape(row.name)}={row.setting}'",
        )
        for row in found.values()
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
        yield _row(method, "table", table.name, table.how, table.loss)
    for number, lost in enumerate(outputs_lost(before, after) if tables else ()):
        yield _row(method, "output", f"output {number}", "", lost)


def _row(method: str, what: str, name: str, how: str, lost: Loss) -> LossRow:
    return LossRow(
        method=method,
        what="table" if what == "table" else "output",
        name=name,
        how=how,
        sqnr_db=lost.sqnr_db if math.isfinite(lost.sqnr_db) else None,
        relative_rms=lost.relative_rms,
        cosine=lost.cosine,
        max_abs_error=lost.max_abs_error,
    )
