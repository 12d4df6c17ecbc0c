"""A report as titled tables of text, in reading order; the renderers only lay them out."""

from collections.abc import Callable, Iterable
from typing import Final, TypeVar

from vkfuse.pte.findings import Finding, LedgerEntry
from vkfuse.report.model import LookupRow, MethodRow, RepairRow, Report, SizeChange, TableRow
from vkfuse.report.section import Column, Section
from vkfuse.report.sizes import counted, mebibytes, percent, share, signed
from vkfuse.report.summary import COUNTS, summary, verification
from vkfuse.runtime.operators.lookup import Dispatch

T = TypeVar("T")

_SHOWN: Final = 20  # rows of a long table; the rest is one line, and all of it is in the JSON


def sections(report: Report) -> tuple[Section, ...]:
    """Return what a release engineer reads, first things first; sections without rows are left out."""
    made = (make(report) for make in _SECTIONS)
    return tuple(section.without_empty_columns() for section in made if section.rows)


def _methods(report: Report) -> Section:
    """Show each of several methods; what there is to say of a single one is the summary."""
    several = report.methods if len(report.methods) > 1 else ()
    return Section(
        title="Methods",
        columns=(
            Column("Method", fold=True),
            Column("From", fold=True),
            Column("Delegates", right=True),
            Column("On Vulkan", right=True),
            Column("On the CPU", right=True),
            Column("Crossings", right=True),
            Column("Verified", fold=True),
        ),
        rows=tuple(_method(row) for row in several),
    )


def _method(row: MethodRow) -> tuple[str, ...]:
    """One method as text."""
    source = "" if row.input is None else f"{row.input.path}, {mebibytes(row.input.bytes)}"
    counts = ["" if row.delegation is None else f"{count(row.delegation):,}" for _, count in COUNTS]
    return row.name, source, *counts, "" if row.verify is None else verification(row.verify)


def _in(report: Report, methods: Iterable[str]) -> str:
    """The methods that something is about, nothing where it is all."""
    named = [row.name for row in report.methods if row.name in {*methods}]
    return "" if len(named) == len(report.methods) else ", ".join(named)


def _tables(report: Report) -> Section:
    """Show what became of each table."""
    shown = report.tables[:_SHOWN]
    return Section(
        title="Tables",
        columns=(
            Column("Table", fold=True),
            Column("In", fold=True),
            Column("Shape, grid"),
            Column("Read by"),
            Column("Now, proof"),
            Column("Before", right=True),
            Column("After", right=True),
        ),
        rows=tuple(_table(row, _in(report, row.methods)) for row in shown),
        rest=_rest(report.tables[_SHOWN:], "table", lambda row: row.bytes_after),
    )


def _table(row: TableRow, where: str) -> tuple[str, ...]:
    """One table as text."""
    grid = f"{row.bits} bit" + (f" / {row.group_size}" if row.group_size else "") if row.bits else ""
    return (
        row.name,
        where,
        _lines(" x ".join(map(str, row.shape)), grid),
        _lines(*row.consumers),
        _lines(row.rung, _proof(row)),
        mebibytes(row.bytes_before),
        mebibytes(row.bytes_after),
    )


def _lines(*parts: str) -> str:
    """Join the parts that are not empty, one a line."""
    return "\n".join(filter(None, parts))


def _proof(row: TableRow) -> str:
    """`exact`, the largest error, or that there is no proof."""
    if row.proof is None:
        return ""
    if row.proof.max_abs_error is None:
        return "no proof"
    return "exact" if row.proof.kind == "exact" else f"within {row.proof.max_abs_error:.2g}"


def _rest(left: tuple[T, ...], noun: str, size: Callable[[T], int]) -> str:
    """`and 12 more tables, 3.1 MiB`."""
    total = sum(size(item) for item in left)
    return f"and {counted(len(left), f'more {noun}')}, {mebibytes(total)}" if left else ""


def _refusals(report: Report) -> Section:
    """Show how a table came to its rung, and why not to a better one."""
    return Section(
        title="How, and why not better",
        columns=(
            Column("Table", fold=True),
            Column("Now"),
            Column("Done", fold=True),
            Column("Why", fold=True),
        ),
        rows=tuple(
            (row.name, row.rung, ", ".join(row.how), row.reason)
            for row in report.tables
            if row.how or row.reason
        ),
    )


def _lookups(report: Report) -> Section:
    """Show the shader that each lookup dispatches; lookups of one table that dispatch the same are one row."""
    calls: dict[tuple[str, tuple[Dispatch, ...]], list[LookupRow]] = {}
    for row in report.lookups:
        calls.setdefault((row.table, row.shaders), []).append(row)
    return Section(
        title="Lookups",
        columns=(
            Column("Table", fold=True),
            Column("In", fold=True),
            Column("Calls", right=True),
            Column("Shader, where", fold=True),
            Column("Runtimes"),
        ),
        rows=tuple(
            (
                table,
                _in(report, [row.method for row in rows]),
                f"{len(rows):,}",
                _lines(*(line for shader in shaders for line in (shader.name, _where(shader)))),
                _lines(*dict.fromkeys(_span(shader.runtimes) for shader in shaders)),
            )
            for (table, shaders), rows in [*calls.items()][:_SHOWN]
        ),
        rest=f"and {counted(len(calls) - _SHOWN, 'more table')}" if len(calls) > _SHOWN else "",
    )


def _where(shader: Dispatch) -> str:
    """`  if maxImageDimension2D >= 250`."""
    return f"  if {shader.when}" if shader.when else ""


def _span(versions: tuple[str, ...]) -> str:
    """`1.3 to 1.5`."""
    return f"{versions[0]} to {versions[-1]}" if len(versions) > 1 else "".join(versions)


def _shaders(report: Report) -> Section:
    """Show the shaders that the file carries."""
    return Section(
        title="Embedded shaders",
        columns=(Column("Shader", fold=True), Column("In", fold=True), Column("Bytes", right=True)),
        rows=tuple(
            (
                row.name or f"unknown {row.sha256[:12]}".strip(),
                _some([*map(str, row.where)]),
                f"{row.bytes:,}",
            )
            for row in report.shaders[:_SHOWN]
        ),
        rest=_rest(report.shaders[_SHOWN:], "shader", lambda row: row.bytes),
    )


def _findings(report: Report) -> Section:
    """Show what the runtime fails on, gets wrong or needs; one row for each reason, with its places."""
    findings = report.loadable.findings if report.loadable is not None else ()
    places: dict[tuple[str, str, str, str], list[str]] = {}
    for finding in sorted(findings, key=_severity):
        key = (finding.effect, finding.name, finding.code, finding.hint)
        places.setdefault(key, []).append(str(finding.where))
    rows = [
        (effect, name, f"{code}: {hint} ({_some(where)})")
        for (effect, name, code, hint), where in places.items()
    ]
    return Section(
        title="Findings",
        columns=(Column("Effect"), Column("Name", fold=True), Column("Why and where", fold=True)),
        rows=tuple(rows[:_SHOWN]),
        rest=f"and {counted(len(rows) - _SHOWN, 'more finding')}" if len(rows) > _SHOWN else "",
    )


def _severity(finding: Finding) -> int:
    """Failures first, notes last."""
    return ("fails", "wrong", "note").index(finding.effect)


def _some(places: list[str]) -> str:
    """Name the first places, and how many more there are."""
    more = f" and {len(places) - 3} more" if len(places) > 3 else ""
    return ", ".join(places[:3]) + more


def _cpu(report: Report) -> Section:
    """Show what stays on the CPU, and why."""
    operators = report.delegation.cpu.items() if report.delegation is not None else ()
    return Section(
        title="On the CPU",
        columns=(
            Column("Operator", fold=True),
            Column("In", fold=True),
            Column("Calls", right=True),
            Column("Why", fold=True),
        ),
        rows=tuple(
            (
                name,
                _in(report, _with_kernel(report, name)),
                f"{operator.count:,}",
                ": ".join(filter(None, (operator.reason, operator.detail))) or "-",
            )
            for name, operator in operators
        ),
    )


def _with_kernel(report: Report, name: str) -> list[str]:
    """The methods that call a CPU kernel."""
    return [row.name for row in report.methods if row.delegation is not None and name in row.delegation.cpu]


def _repairs(report: Report) -> Section:
    """Show exact rewrites around what the runtime lacks, counted by code."""
    made: dict[tuple[str, str], list[RepairRow]] = {}
    for row in report.repairs:
        made.setdefault((row.code, row.detail), []).append(row)
    return Section(
        title="Repairs",
        columns=(
            Column("Repair"),
            Column("In", fold=True),
            Column("Where", fold=True),
            Column("Why", fold=True),
        ),
        rows=tuple(
            (
                code,
                _in(report, [row.method for row in rows]),
                _some([*dict.fromkeys(row.node for row in rows)]),
                detail,
            )
            for (code, detail), rows in made.items()
        ),
    )


def _changes(report: Report) -> Section:
    """Show labels whose bytes differ from the file before."""
    changes = report.diff.ledger if report.diff is not None else ()
    return Section(
        title="Changed bytes",
        columns=(
            Column("Label", fold=True),
            Column("Before", right=True),
            Column("After", right=True),
            Column("Change", right=True),
            Column("%", right=True),
        ),
        rows=tuple(_change(change) for change in changes[:_SHOWN]),
        rest=_rest(changes[_SHOWN:], "label", lambda change: change.delta),
    )


def _change(change: SizeChange) -> tuple[str, ...]:
    """One change of size as text."""
    sizes = (mebibytes(change.before), mebibytes(change.after), signed(change.delta))
    return (change.label, *sizes, "gone" if change.after is None else percent(change.percent))


def _content_changes(report: Report) -> Section:
    """Show labels that hold other bytes than before, and as many."""
    changes = report.diff.contents if report.diff is not None else ()
    return Section(
        title="Same size, other content",
        columns=(
            Column("Label", fold=True),
            Column("Size", right=True),
            Column("Parts", right=True),
            Column("Changed", right=True),
            Column("Bytes that differ", right=True),
        ),
        rows=tuple(
            (c.label, mebibytes(c.bytes), f"{c.parts:,}", f"{c.changed:,}", f"{c.differing:,}")
            for c in changes[:_SHOWN]
        ),
        rest=_rest(changes[_SHOWN:], "label", lambda change: change.differing),
    )


def _operator_changes(report: Report) -> Section:
    """Show operators whose number of calls differs."""
    changes = report.diff.operators if report.diff is not None else ()
    return Section(
        title="Changed operators",
        columns=(
            Column("Operator", fold=True),
            Column("On"),
            Column("Before", right=True),
            Column("After", right=True),
        ),
        rows=tuple((c.operator, c.place, f"{c.before:,}", f"{c.after:,}") for c in changes[:_SHOWN]),
        rest=f"and {counted(len(changes) - _SHOWN, 'more operator')}" if len(changes) > _SHOWN else "",
    )


def _table_changes(report: Report) -> Section:
    """Show tables that differ from those of the file before."""
    changes = report.diff.tables if report.diff is not None else ()
    return Section(
        title="Changed tables",
        columns=(
            Column("Table", fold=True),
            Column("Before", fold=True),
            Column("After", fold=True),
            Column("Change", right=True),
        ),
        rows=tuple((c.name, c.before or "-", c.after or "-", signed(c.delta)) for c in changes[:_SHOWN]),
        rest=_rest(changes[_SHOWN:], "table", lambda change: change.delta),
    )


def _ledger(report: Report) -> Section:
    """Show where the bytes are."""
    whole = sum(entry.bytes for entry in report.ledger)
    return Section(
        title="Bytes",
        columns=(
            Column("Label", fold=True),
            Column("Count", right=True),
            Column("Size", right=True),
            Column("Share", right=True),
        ),
        rows=tuple(_entry(entry, whole) for entry in report.ledger[:_SHOWN]),
        rest=_rest(report.ledger[_SHOWN:], "label", lambda entry: entry.bytes),
    )


def _entry(entry: LedgerEntry, whole: int) -> tuple[str, ...]:
    """One label as text."""
    return entry.label, f"{entry.count:,}", mebibytes(entry.bytes), share(entry.bytes, whole)


def _notes(report: Report) -> Section:
    """Show what else there is to say."""
    notes: Iterable[str] = report.notes
    if report.diff is not None and report.diff.identical:
        notes = (*notes, "the two files are identical, byte for byte")
    return Section(title="Notes", columns=(), rows=tuple(("-", note) for note in notes))


_SECTIONS: Final[tuple[Callable[[Report], Section], ...]] = (
    summary,
    _methods,
    _findings,
    _tables,
    _refusals,
    _lookups,
    _shaders,
    _cpu,
    _repairs,
    _changes,
    _content_changes,
    _operator_changes,
    _table_changes,
    _ledger,
    _notes,
)
