"""A report as titled tables, in reading order; the renderers only lay them out."""

from collections.abc import Callable, Iterable
from typing import Final

from vkfuse.lint.findings import EFFECTS
from vkfuse.measure.memory import MEMORY
from vkfuse.quantities import mebibytes, some
from vkfuse.report.model import LookupRow, MethodRow, RepairRow, Report, SizeChange, TableRow
from vkfuse.report.section import (
    Cell,
    Column,
    Kind,
    Section,
    bits,
    change,
    count,
    listing,
    name,
    percentage,
    portion,
    size,
)
from vkfuse.report.summary import COUNTS, summary, verification
from vkfuse.runtime.operators.lookup import Dispatch


def sections(report: Report) -> tuple[Section, ...]:
    """Return what a release engineer reads, first things first; sections without rows are left out."""
    made = (make(report) for make in _SECTIONS)
    return tuple(section for section in made if section.rows)


def _methods(report: Report) -> Section:
    """Show each of several methods; what there is to say of a single one is the summary."""
    several = report.methods if len(report.methods) > 1 else ()
    columns = (name("Method"), name("From"), *(count(title) for title, _ in COUNTS), name("Verified"))
    return listing("Methods", columns, map(_method, several))


def _method(row: MethodRow) -> tuple[Cell, ...]:
    source = "" if row.input is None else f"{row.input.path}, {mebibytes(row.input.bytes)}"
    counts = [None if row.delegation is None else number(row.delegation) for _, number in COUNTS]
    return row.name, source, *counts, "" if row.verify is None else verification(row.verify)


def _in(report: Report, methods: Iterable[str]) -> str:
    """The methods that something is about, nothing where it is all."""
    named = [row.name for row in report.methods if row.name in {*methods}]
    return "" if len(named) == len(report.methods) else ", ".join(named)


def _tables(report: Report) -> Section:
    """Show what became of each table."""
    columns = (
        *(name("Table"), name("In"), Column("Shape, grid"), bits("Bits"), Column("Read by")),
        *(Column("Now, proof"), size("Before"), size("After")),
    )
    rows = (_table(row, _in(report, row.methods)) for row in report.tables)
    return listing("Tables", columns, rows, "table", "After")


def _table(row: TableRow, where: str) -> tuple[Cell, ...]:
    grid = f"{row.bits} bit" + (f" / {row.group_size}" if row.group_size else "") if row.bits else ""
    return (
        row.name,
        where,
        _lines(" x ".join(map(str, row.shape)), grid),
        row.bits_per_weight,
        _lines(*row.consumers),
        _lines(row.rung, _proof(row)),
        row.bytes_before,
        row.bytes_after,
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


def _refusals(report: Report) -> Section:
    """Show how a table came to its rung, and why not to a better one."""
    columns = (name("Table"), Column("Now"), name("Done"), name("Why"))
    told = (row for row in report.tables if row.how or row.reason)
    rows = ((row.name, row.rung, ", ".join(row.how), row.reason) for row in told)
    return listing("How, and why not better", columns, rows)


def _runtimes(report: Report) -> Section:
    """Show which runtimes load the file, and what is missing on each."""
    columns = (Column("Runtime"), Column("Loads"), name("Missing"), name("Why"))
    rows = (
        (row.version, "yes" if row.ok else "no", ", ".join(row.missing), ", ".join(row.codes))
        for row in report.runtimes
    )
    return listing("Runtimes", columns, rows)


def _lookups(report: Report) -> Section:
    """Show the shader that each lookup dispatches; lookups of one table that dispatch the same are one row."""
    calls: dict[tuple[str, tuple[Dispatch, ...]], list[LookupRow]] = {}
    for row in report.lookups:
        calls.setdefault((row.table, row.shaders), []).append(row)
    columns = (name("Table"), name("In"), count("Calls"), name("Shader, where"), Column("Runtimes"))
    rows = (
        (
            table,
            _in(report, [row.method for row in of]),
            len(of),
            _lines(*(line for shader in shaders for line in (shader.name, _where(shader)))),
            _lines(*dict.fromkeys(_span(shader.runtimes) for shader in shaders)),
        )
        for (table, shaders), of in calls.items()
    )
    return listing("Lookups", columns, rows, "table")


def _where(shader: Dispatch) -> str:
    """`  if maxImageDimension2D >= 250`."""
    return f"  if {shader.when}" if shader.when else ""


def _span(versions: tuple[str, ...]) -> str:
    """`1.3 to 1.5`."""
    return f"{versions[0]} to {versions[-1]}" if len(versions) > 1 else "".join(versions)


def _shaders(report: Report) -> Section:
    """Show the shaders that the file carries."""
    rows = (
        (row.name or f"unknown {row.sha256[:12]}".strip(), some(row.where), row.bytes)
        for row in report.shaders
    )
    return listing("Embedded shaders", (name("Shader"), name("In"), count("Bytes")), rows, "shader", "Bytes")


def _findings(report: Report) -> Section:
    """Show what the runtime fails on, gets wrong or needs; one row for each reason, with its places."""
    findings = report.loadable.findings if report.loadable is not None else ()
    places: dict[tuple[str, str, str, str], list[object]] = {}
    for finding in sorted(findings, key=lambda finding: EFFECTS.index(finding.effect)):
        key = (finding.effect, finding.name, finding.code, finding.hint)
        places.setdefault(key, []).append(finding.where)
    rows = (
        (effect, what, f"{code}: {hint} ({some(where)})")
        for (effect, what, code, hint), where in places.items()
    )
    return listing("Findings", (Column("Effect"), name("Name"), name("Why and where")), rows, "finding")


def _cpu(report: Report) -> Section:
    """Show what stays on the CPU, and why."""
    operators = report.delegation.cpu.items() if report.delegation is not None else ()
    rows = (
        (
            kernel,
            _in(report, _with_kernel(report, kernel)),
            operator.count,
            ": ".join(filter(None, (operator.reason, operator.detail))) or "-",
        )
        for kernel, operator in operators
    )
    return listing("On the CPU", (name("Operator"), name("In"), count("Calls"), name("Why")), rows)


def _with_kernel(report: Report, kernel: str) -> list[str]:
    """The methods that call a CPU kernel."""
    return [row.name for row in report.methods if row.delegation is not None and kernel in row.delegation.cpu]


def _repairs(report: Report) -> Section:
    """Show exact rewrites around what the runtime lacks, counted by code."""
    made: dict[tuple[str, str], list[RepairRow]] = {}
    for row in report.repairs:
        made.setdefault((row.code, row.detail), []).append(row)
    rows = (
        (code, _in(report, [row.method for row in of]), some(dict.fromkeys(row.node for row in of)), detail)
        for (code, detail), of in made.items()
    )
    return listing("Repairs", (Column("Repair"), name("In"), name("Where"), name("Why")), rows)


def _losses(report: Report) -> Section:
    """Show what was lost because it was asked for."""
    figures = (
        Column(title, Kind.FIGURE) for title in ("SQNR, dB", "Relative RMS", "Cosine", "Largest error")
    )
    rows = (
        (
            *(row.name, _in(report, [row.method]), row.how or "output"),
            *("no loss" if row.sqnr_db is None else f"{row.sqnr_db:.1f}", f"{row.relative_rms:.2g}"),
            *(f"{row.cosine:.5f}", f"{row.max_abs_error:.2g}"),
        )
        for row in report.losses
    )
    return listing("Lost, as asked", (name("Table or output"), name("In"), Column("Setting"), *figures), rows)


def _what_if(report: Report) -> Section:
    """Show what tables would take and lose at other settings."""
    columns = (
        *(name("Table"), Column("Setting"), size("Before"), size("After")),
        *(Column("Relative RMS", Kind.FIGURE), Column("Option")),
    )
    rows = (
        (row.table, row.setting, row.bytes_before, row.bytes_after, f"{row.relative_rms:.4f}", row.option)
        for row in report.what_if
    )
    return listing("What if", columns, rows)


def _memory(report: Report) -> Section:
    """Show what a file takes on disk and once it is loaded, side by side with the one before."""
    if report.diff is not None:
        changes = (of for of in report.diff.memory if of.before or of.after)
        return listing("On disk and at run time", _SIZES, map(_change, changes))
    file = () if report.output is None or not report.memory else (("file", report.output.bytes),)
    parts = ((label, sum(map(part, report.memory))) for label, _, part in MEMORY)
    external = ((of.path, of.bytes) for of in report.external)
    rows = (*file, *external, *((label, amount) for label, amount in parts if amount))
    return listing("On disk and at run time", (name("What"), size("Size")), rows)


_SIZES: Final = (name("What"), size("Before"), size("After"), change("Change"), percentage("%"))


def _changes(report: Report) -> Section:
    """Show labels whose bytes differ from the file before."""
    columns = (name("Label"), *_SIZES[1:])
    rows = map(_change, report.diff.ledger if report.diff is not None else ())
    return listing("Changed bytes", columns, rows, "label", "Change")


def _change(of: SizeChange) -> tuple[Cell, ...]:
    return of.label, of.before, of.after, of.delta, "gone" if of.after is None else of.percent


def _content_changes(report: Report) -> Section:
    """Show labels that hold other bytes than before, and as many."""
    columns = (name("Label"), size("Size"), count("Parts"), count("Changed"), count("Bytes that differ"))
    changes = report.diff.contents if report.diff is not None else ()
    rows = ((c.label, c.bytes, c.parts, c.changed, c.differing) for c in changes)
    return listing("Same size, other content", columns, rows, "label", "Bytes that differ")


def _operator_changes(report: Report) -> Section:
    """Show operators whose number of calls differs."""
    columns = (name("Operator"), Column("On"), count("Before"), count("After"), Column("What"))
    changes = report.diff.operators if report.diff is not None else ()
    rows = ((c.operator, c.place, c.before, c.after, c.what) for c in changes)
    return listing("Changed operators", columns, rows, "operator")


def _layout_changes(report: Report) -> Section:
    """Show operators that work on other types, storages or packings than before."""
    columns = (name("Operator"), Column("On"), count("Calls"), name("Before"), name("After"))
    changes = report.diff.layouts if report.diff is not None else ()
    rows = ((c.operator, c.place, c.calls, c.before, c.after) for c in changes)
    return listing("Changed types and packing", columns, rows, "change")


def _finding_changes(report: Report) -> Section:
    """Show what the runtime newly fails on, gets wrong or needs, and what it no longer does."""
    columns = (Column("Effect"), name("Name"), name("Why"), count("Before"), count("After"))
    changes = report.diff.findings if report.diff is not None else ()
    rows = ((c.effect, c.name, c.code, c.before, c.after) for c in changes)
    return listing("Changed loadability", columns, rows, "change")


def _table_changes(report: Report) -> Section:
    """Show tables that differ from those of the file before."""
    columns = (name("Table"), name("Before"), name("After"), change("Change"))
    changes = report.diff.tables if report.diff is not None else ()
    rows = ((c.name, c.before or "-", c.after or "-", c.delta) for c in changes)
    return listing("Changed tables", columns, rows, "table", "Change")


def _ledger(report: Report) -> Section:
    """Show where the bytes are."""
    columns = (name("Label"), count("Count"), size("Size"), portion("Share"))
    whole = sum(entry.bytes for entry in report.ledger) or 1
    rows = ((e.label, e.count, e.bytes, e.bytes / whole) for e in report.ledger)
    return listing("Bytes", columns, rows, "label", "Size")


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
    _finding_changes,
    _runtimes,
    _memory,
    _changes,
    _content_changes,
    _table_changes,
    _operator_changes,
    _layout_changes,
    _tables,
    _losses,
    _what_if,
    _refusals,
    _lookups,
    _shaders,
    _cpu,
    _repairs,
    _ledger,
    _notes,
)
