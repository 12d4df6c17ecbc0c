"""The document that every renderer lays out: of a report, or of several with an overview in front."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Final

from vkfuse.quantities import counted, mebibytes
from vkfuse.report.alike import condensed
from vkfuse.report.bytes_map import Leaf, labels, leaves
from vkfuse.report.model import Loadable, Report, Reports
from vkfuse.report.section import Column, Section, count, listing, name, size
from vkfuse.report.sections import sections
from vkfuse.report.summary import COUNTS, headline, told


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """What a report says: `headline` in a line, `front` at length; `files` are further reports by path, each at length.

    `leaves` are the bytes as a treemap draws them, coloured by change where it is a `diff`; `labels` a row a label.
    """

    headline: str
    front: tuple[Section, ...]
    files: tuple[tuple[str, tuple[Section, ...]], ...]
    leaves: tuple[Leaf, ...]
    labels: Section
    diff: bool


def document(report: Report | Reports, *, every: bool = True) -> Document:
    """Return the document of a report, or of several; unless `every`, rows that are alike but for a number are one."""
    if isinstance(report, Reports):
        return _of_several(report, every=every)
    return Document(
        headline=headline(report),
        front=_sections(report, every=every),
        files=(),
        leaves=leaves(report),
        labels=labels(report),
        diff=report.diff is not None,
    )


def _sections(report: Report, *, every: bool) -> tuple[Section, ...]:
    if not every:
        return sections(condensed(report))
    return tuple(replace(section, noun="") for section in sections(report))


def _of_several(of: Reports, *, every: bool) -> Document:
    named = [(_path(report), report) for report in of.reports]
    tables = [labels(report) for report in of.reports]
    drawn = (replace(leaf, path=(path, *leaf.path)) for path, report in named for leaf in leaves(report))
    front = (_files(of), _unread(of), _missing(of), _runtimes(of), _failed(of))
    return Document(
        headline=_headline(of),
        front=tuple(section for section in front if section.rows),
        files=tuple((path, _sections(report, every=every)) for path, report in named),
        leaves=tuple(drawn),
        labels=replace(tables[0], rows=tuple(row for table in tables for row in table.rows)),
        diff=False,
    )


def _path(report: Report) -> str:
    return report.output.path if report.output is not None else ""


def _headline(of: Reports) -> str:
    """`FAILED: 3 files, 252.0 MiB, 1 NOT loadable on 1.5.1; 1 of 6 checks failed`."""
    checks = [check for report in of.reports for check in report.checks]
    failed = sum(not check.passed for check in checks)
    unloadable = sum(report.loadable is not None and not report.loadable.ok for report in of.reports)
    total = mebibytes(sum(report.output.bytes for report in of.reports if report.output is not None))
    runtime = of.reports[0].runtime
    verdict = f"{unloadable} NOT loadable on {runtime}" if unloadable else f"all loadable on {runtime}"
    said = f"{failed} of {counted(len(checks), 'check')} failed" if failed else ""
    unread = f"{counted(len(of.unread), 'file')} NOT read" if of.unread else ""
    text = "; ".join(filter(None, (f"{counted(len(of.reports), 'file')}, {total}, {verdict}", unread, said)))
    return f"FAILED: {text}" if failed or unread else text


def _files(of: Reports) -> Section:
    """Show a row a file, named from the folder that all are in."""
    columns = (name("File"), size("Size"), Column("Loads"), count("Vulkan"), count("CPU"), count("Tables"))
    folder = _folder(of)
    rows = (
        (
            _path(report)[len(folder) :],
            report.output.bytes if report.output is not None else None,
            _loads(report),
            *(None if report.delegation is None else number(report.delegation) for number in _PLACES),
            len(report.tables),
        )
        for report in of.reports
    )
    place = f" in {folder}" if folder else ""
    title = f"{counted(len(of.reports), 'file')}{place}: Vulkan runtime of ExecuTorch {of.reports[0].runtime}"
    return listing(title, columns, rows)


_PLACES: Final = tuple(number for title, number in COUNTS if title in {"On Vulkan", "On the CPU"})


def _folder(of: Reports) -> str:
    """Return the folder of several files, empty where they have none in common."""
    folders = [_path(report).split("/")[:-1] for report in of.reports]
    together = zip(*folders, strict=False) if len(folders) > 1 else ()
    return "".join(f"{names[0]}/" for names in takewhile(lambda names: len({*names}) == 1, together))


def _loads(report: Report) -> str:
    return ("yes" if report.loadable.ok else "no") if report.loadable is not None else ""


def _unread(of: Reports) -> Section:
    """Show the files that could not be read."""
    return listing("Not read", (name("File"), name("Why")), ((row.path, row.error) for row in of.unread))


def _missing(of: Reports) -> Section:
    """Show what the files miss that do not load, or are wrong."""
    columns = (name("File"), name("Missing"), name("Why"))
    folder = _folder(of)
    rows = (
        (_path(report)[len(folder) :], ", ".join(report.loadable.missing), ", ".join(_codes(report.loadable)))
        for report in of.reports
        if report.loadable is not None and not report.loadable.ok
    )
    return listing("Not loadable", columns, rows)


def _codes(loadable: Loadable) -> Iterable[str]:
    return dict.fromkeys(found.code for found in loadable.findings if found.effect != "note")


def _runtimes(of: Reports) -> Section:
    """Show which runtimes load which file."""
    folder = _folder(of)
    versions = tuple(dict.fromkeys(row.version for report in of.reports for row in report.runtimes))
    rows = (
        (_path(report)[len(folder) :], *("yes" if row.ok else "no" for row in report.runtimes))
        for report in of.reports
        if report.runtimes
    )
    return listing("Loaded by", (name("File"), *map(Column, versions)), rows)


def _failed(of: Reports) -> Section:
    """Show the checks that failed."""
    return listing("Failed checks", (name("File"), name("Check")), _failures(of))


def _failures(of: Reports) -> Iterator[tuple[str, str]]:
    for report in of.reports:
        yield from ((_path(report), told(check)) for check in report.checks if not check.passed)
