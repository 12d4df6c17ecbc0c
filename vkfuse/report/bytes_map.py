"""Where the bytes of a report are: as the leaves of a tree, which a treemap draws, and as rows for machines."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final

from vkfuse.report.model import Diff, Report
from vkfuse.report.section import Column, Section, change, count, name, size


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """Bytes under a path of names, of a diff with those before; None where a file has none. `area` is what to draw."""

    path: tuple[str, ...]
    kind: str
    bytes: int | None
    before: int | None = None
    delta: int | None = None

    @property
    def area(self) -> int:
        """Bytes now, before for what is gone."""
        return (self.before or 0) if self.bytes is None else self.bytes


def leaves(report: Report) -> tuple[Leaf, ...]:
    """Return the labels of a file, or of two, each under its kind."""
    return tuple(_labels(report) if report.diff is None else _changes(report, report.diff))


def _labels(report: Report) -> Iterator[Leaf]:
    """Yield the labels, those of several places under what they are."""
    for entry in report.ledger:
        yield Leaf(path=(entry.kind, entry.what, entry.label), kind=entry.kind, bytes=entry.bytes)


def _changes(report: Report, diff: Diff) -> Iterator[Leaf]:
    """Yield what a diff counts by: labels that changed, and those that did not."""
    now = Counter[tuple[str, str]]()
    for entry in report.ledger:
        now[entry.kind, entry.group] += entry.bytes
    names = {entry.group: entry.what for entry in report.ledger}
    changed = {(change.kind, change.label): change for change in diff.ledger}
    for kind, label in {**now, **changed}:
        change, size = changed.get((kind, label)), now.get((kind, label))
        before = size if change is None else change.before
        delta = 0 if change is None else change.delta
        path = (kind, names.get(label, label), label)
        yield Leaf(path=path, kind=kind, bytes=size, before=before, delta=delta)


_OF: Final = (name("file"), Column("kind"), name("label"))


def labels(report: Report) -> Section:
    """Return a row a label; of equal sizes `differing` counts the bytes that are others."""
    diff, path = report.diff, report.output.path if report.output is not None else ""
    section = partial(Section, title="labels")
    if diff is None:
        counted = tuple((path, e.kind, e.label, e.count, e.bytes) for e in report.ledger)
        return section(columns=(*_OF, count("count"), size("bytes")), rows=counted)
    columns = (*_OF, size("before"), size("after"), change("delta"), count("differing"))
    sizes = ((path, c.kind, c.label, c.before, c.after, c.delta, None) for c in diff.ledger)
    contents = ((path, c.kind, c.label, c.bytes, c.bytes, 0, c.differing) for c in diff.contents)
    return section(columns=columns, rows=(*sizes, *contents))
