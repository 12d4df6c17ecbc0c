"""A report as CSV or TSV: a row a label, of a diff a row for each label whose size or content changed.

Sources: RFC 4180, and IANA's text/tab-separated-values, which knows no quoting.
"""

import csv
from io import StringIO
from typing import Final

from vkfuse.report.document import Document
from vkfuse.report.section import Cell, Section
from vkfuse.report.visible import visible

_FORMULA: Final = ("=", "+", "-", "@")  # a spreadsheet computes a text that begins so


def render_csv(of: Document) -> str:
    """Return the labels as CSV, sizes in bytes; no name from a file is a formula."""
    return _written(of.labels)


def render_tsv(of: Document) -> str:
    """Return the labels as TSV; a tab in a name is shown as a replacement character."""
    return _written(of.labels, delimiter="\t", quoting=csv.QUOTE_NONE, quotechar=None)


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
