"""A report as CSV or TSV: a row a label, of a diff a row for each label whose size or content changed.

Sources: RFC 4180, and IANA's text/tab-separated-values, which knows no quoting.
"""

import csv
from functools import partial
from io import StringIO
from typing import Final

from vkfuse.report.model import Report
from vkfuse.report.section import Cell, Column, Section, change, count, name, size
from vkfuse.report.visible import visible

_FORMULA: Final = ("=", "+", "-", "@")  # a spreadsheet computes a text that begins so
_OF: Final = (name("file"), Column("kind"), name("label"))


def render_csv(report: Report) -> str:
    """Return the labels as CSV, sizes in bytes; no name from a file is a formula."""
    return _written(labels(report))


def render_tsv(report: Report) -> str:
    """Return the labels as TSV; a tab in a name is shown as a replacement character."""
    return _written(labels(report), delimiter="\t", quoting=csv.QUOTE_NONE, quotechar=None)


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


def _written(section: Section, **dialect: object) -> str:
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n", **dialect)  # type: ignore[arg-type]
    writer.writerow(column.title for column in section.columns)
    writer.writerows([*map(_field, row)] for row in section.rows)
    return text.getvalue()


def _field(cell: Cell) -> Cell:
    """Return a cell that steers neither a terminal nor a spreadsheet."""
    if not isinstance(cell, str):
        return cell
    shown = visible(cell, besides="")
    return f"'{shown}" if shown.startswith(_FORMULA) else shown
