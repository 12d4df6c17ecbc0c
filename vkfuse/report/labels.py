"""The bytes of a report as rows for machines: a row a label, of a diff one for each that changed."""

from functools import partial
from typing import Final

from vkfuse.report.model import Report
from vkfuse.report.section import Column, Section, change, count, name, size

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
