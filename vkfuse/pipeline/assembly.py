"""The report, put together from the methods, the file and the one before."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from vkfuse.lower.owned import place_notes
from vkfuse.lower.state import state_notes
from vkfuse.options import Options
from vkfuse.pipeline.baseline import Before
from vkfuse.pipeline.method import Methods, as_given, to_lower
from vkfuse.pipeline.tables import growth_notes, table_rows
from vkfuse.pipeline.verification import deviations, precision, together, verify_row
from vkfuse.report.build import Measured
from vkfuse.report.checks import checked
from vkfuse.report.cost import Meter
from vkfuse.report.model import Diff, MethodRow, RepairRow, Report
from vkfuse.report.whole import inputs_of, report_of
from vkfuse.runtime.versions import Runtime


def report_of_plan(methods: Methods, before: Methods, runtime: Runtime, meter: Meter) -> Report:
    """What a plan would make of each table, `before` being the plan without fused lookups."""
    rows = tuple(MethodRow(name=m.name, input=m.input) for m in methods)
    return Report(
        runtime=runtime.version,
        input=inputs_of(rows),
        methods=rows,
        tables=table_rows(methods, before),
        repairs=tuple(_repair_rows(methods)) if any(m.prepared is not m.surveyed for m in methods) else (),
        cost=meter.cost(),
    )


def report_of_file(
    methods: Methods, after: Measured, before: Before, target: Path, options: Options, meter: Meter
) -> Report:
    """What was written, to be found at `target`, against the file before."""
    rows = tuple(_method_rows(methods, after, options))
    of_bytes = report_of(after, before.measured, options.runtime, path=str(target))
    report = replace(
        of_bytes,
        input=inputs_of(rows),
        baseline=before.baseline,
        methods=rows,
        tables=table_rows(methods, before.methods),
        repairs=tuple(_repair_rows(methods)),
        verify=together(row.verify for row in rows if row.verify is not None),
        cost=meter.cost(),
        diff=_diff(of_bytes.diff, before),
        notes=(
            *of_bytes.notes,
            *state_notes(as_given(methods), to_lower(methods)),
            *place_notes({m.name: m.state for m in methods}),
            *deviations(methods),
            *precision(methods),
        ),
    )
    report = replace(report, notes=(*report.notes, *growth_notes(report)))
    return checked(report, options.gates, after, before.measured)


def _diff(diff: Diff | None, before: Before) -> Diff | None:
    """What changed; the tables of a file that was made for this are none of its own: they have rows, by name."""
    made = before.baseline.kind != "file"
    return replace(diff, tables=()) if made and diff is not None else diff


def _method_rows(methods: Methods, after: Measured, options: Options) -> Iterator[MethodRow]:
    """A row for each method, in the order given."""
    written = {row.name: row for row in after.methods}
    for m in methods:
        yield replace(written[m.name], input=m.input, verify=verify_row(m, options))


def _repair_rows(methods: Methods) -> Iterator[RepairRow]:
    """A row for each node that a repair changed."""
    for method, repaired in [
        *((m.name, m.surveyed) for m in methods),
        *((m.name, m.prepared) for m in methods),
    ]:
        for made in repaired.repairs:
            for node in made.nodes:
                yield RepairRow(code=made.code, node=node, detail=made.detail, method=method)
