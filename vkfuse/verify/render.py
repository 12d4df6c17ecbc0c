"""A verification as text for a terminal or log, and as JSON for scripts (`vkfuse.verify/1`)."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from vkfuse import __version__
from vkfuse.measure.audit import TableCheck
from vkfuse.quantities import counted, some
from vkfuse.report.section import figure, listing, name
from vkfuse.report.serial import plain
from vkfuse.report.text import laid_out, widen
from vkfuse.report.visible import visible
from vkfuse.verify.verdict import Applied, OutputCheck, Run, Status, Verification

SCHEMA: Final = "vkfuse.verify/1"
_HEADLINES: Final[Mapping[Status, str]] = {
    "same": "same: the file computes what the program does",
    "differs": "DIFFERS: the file does not compute what the program does",
    "not-loadable": "NOT LOADABLE: the runtime refuses the file",
    "cannot-verify": "CANNOT VERIFY: neither a pass nor a failure of the file",
    "fails": "FAILS: an operator cannot run on its inputs",
}
_FEW: Final = 8  # rows of a long list that text shows


def dumps(verification: Verification) -> str:
    """Return the verification as JSON text; a number that JSON lacks as its name."""
    return json.dumps(to_json(verification), indent=2, allow_nan=False) + "\n"


def to_json(verification: Verification) -> dict[str, Any]:
    """Return the verification as plain JSON types."""
    return {"schema": SCHEMA, "vkfuse": __version__, "ok": verification.ok, **plain(verification)}


def render_text(verification: Verification, console: Console) -> None:
    """Print the verification; the console decides on width and colour."""
    style = "bold green" if verification.ok else "bold red"
    parts = [*_parts(verification)]
    widen(console, parts)
    console.print(Text(_HEADLINES[verification.status], style=style))
    for part in parts:
        console.print(Padding(part, (0, 0, 0, 2), expand=False), soft_wrap=False)


def _parts(verification: Verification) -> Iterator[RenderableType]:
    for line in (verification.message, verification.hint):
        if line and not verification.findings:  # which say the same, each with its hint
            yield Text(_line(line))
    if verification.departure is not None:
        yield from _departure(verification)
    if verification.runs:
        yield _runs(verification.runs)
        yield from _reasons(verification.runs)
    if verification.device_runs:
        yield Text(_line("the whole file on the device:"))
        yield _runs(verification.device_runs)
    yield from _tables(verification.tables)
    for check in verification.device:
        agreed = "bit for bit" if check.differing == 0 else f"{check.differing} values differ"
        yield Text(_line(f"{check.shader} on {check.driver}, {check.where}: {check.values} values, {agreed}"))
    yield from _applied(verification.applied)
    for finding in verification.findings[:_FEW]:
        yield Text(_line(f"{finding.code}: {finding.name} in {finding.where}: {finding.hint}"))
    if (left := len(verification.findings) - _FEW) > 0:
        yield Text(f"and {counted(left, 'more finding')}")
    for reason in verification.skipped:
        yield Text(_line(f"skipped: {reason}"), style="dim")


def _departure(verification: Verification) -> Iterator[RenderableType]:
    found = verification.departure
    if found is not None:
        program = f"; the program has {found.node} {found.source}" if found.node else ""
        yield Text(_line(f"first operator that departs: {found.operator} in {found.where}{program}"))
        if found.behaviours:
            yield Text(f"the runtime there: {', '.join(found.behaviours)}")


def _runs(runs: tuple[Run, ...]) -> Table:
    """Lay out each output of each run."""
    columns = (
        *map(name, ("inputs", "output", "shape")),
        *map(figure, ("abs", "rel", "ulp", "SQNR dB", "cosine", "top-1", "limit", "")),
    )
    rows = ((run.label, *_cells(output)) for run in runs for output in run.outputs)
    return laid_out(listing("", columns, rows))


def _reasons(runs: tuple[Run, ...]) -> Iterator[RenderableType]:
    """Say once how the runtime's arithmetic differs, and how much that made."""
    for reason in dict.fromkeys(run.reason for run in runs if run.reason):
        with_it = [run for run in runs if run.reason == reason]
        off = max(run.eager_rel or 0.0 for run in with_it)
        noise = max(run.noise for run in with_it)
        added = f", limits raised by up to {noise:.2g} of noise that this makes of 1e-6" if noise else ""
        yield Text(
            f"by design up to {off:.2g} off eager on {len(with_it)} of {len(runs)} inputs: {reason}; compared with "
            f"the program in that arithmetic{added}"
        )


def _cells(output: OutputCheck) -> Iterator[str]:
    yield str(output.index)
    yield f"{output.dtype}{list(output.shape)}"
    yield from (f"{number:.2g}" for number in (output.max_abs, output.max_rel, output.max_ulp))
    yield f"{output.sqnr_db:.0f}"
    yield f"{output.cosine:.6f}"
    yield "" if output.top1 is None else f"{output.top1:.1%}"
    yield f"{output.limit:.2g}"
    yield "" if output.passed else "DIFFERS"


def _tables(tables: tuple[TableCheck, ...]) -> Iterator[RenderableType]:
    right = [table for table in tables if table.matches and not table.differing]
    equal, rounded = ([t for t in right if bool(t.rounded) == rounding] for rounding in (False, True))
    if equal:
        values = sum(table.values for table in equal)
        yield Text(f"tables: {len(equal)} read whole, all {values} values are the program's")
    if rounded:
        values, most = sum(table.values for table in rounded), max(table.max_abs for table in rounded)
        yield Text(
            f"tables: {len(rounded)} read whole, {values} values are the program's as half precision stores them, "
            f"within {most:.2g}"
        )
    for table in tables:
        if table.differing and table.matches:
            yield Text(
                _line(
                    f"table {table.matches} in {table.operator} ({table.where}): {table.differing} of "
                    f"{table.values} values differ by up to {table.max_abs:.3g}, the first in row {table.first_row}"
                ),
                style="red",
            )
        elif not table.matches:
            yield Text(
                _line(f"table of {table.operator} ({table.where}) is like none of the program"),
                style="dim",
            )


def _applied(applied: tuple[Applied, ...]) -> Iterator[RenderableType]:
    for behaviour in applied:
        where = some(behaviour.places, _FEW)
        yield Text(_line(f"{behaviour.code}: {behaviour.summary} ({where})"), style="dim")


def _line(text: str) -> str:
    """Return text of one line, whatever names the file has."""
    return visible(text, besides="")
