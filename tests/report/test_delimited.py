"""CSV and TSV: a row a label, and names that try to be formulas or fields."""

import csv
import io
from dataclasses import replace

import pytest

from vkfuse.commands.report import report_files
from vkfuse.measure.ledger import LedgerEntry
from vkfuse.report import model
from vkfuse.report.format import Format
from vkfuse.report.render import rendered

HOSTILE = ('=HYPERLINK("http://x")', "+1", "-1", "@x", "a\tb\nc", 'say "hi", twice', "\x1b[31m")


def _read(text, fmt):
    """The rows, as a reader of the format has them."""
    if fmt is Format.CSV:
        return [*csv.DictReader(io.StringIO(text))]
    titles, *lines = (line.split("\t") for line in text.splitlines())
    return [dict(zip(titles, line, strict=True)) for line in lines]


@pytest.mark.parametrize("fmt", [Format.CSV, Format.TSV])
def test_a_row_a_label(files, fmt):
    """The labels of a file sum to its size; those of a diff to its change, with the bytes of other content."""
    path = files / "tied.pte"
    rows = _read(rendered(report_files(path), fmt), fmt)
    assert sum(int(row["bytes"]) for row in rows) == path.stat().st_size
    assert {row["file"] for row in rows} == {str(path)}
    report = report_files(path, files / "fused.pte")
    rows = _read(rendered(report, fmt), fmt)
    assert sum(int(row["delta"]) for row in rows) == report.diff.total.delta
    assert [row["label"] for row in rows] == [c.label for c in (*report.diff.ledger, *report.diff.contents)]
    assert [row["differing"] for row in rows] == [
        *("" for _ in report.diff.ledger),
        *(str(change.differing) for change in report.diff.contents),
    ]


@pytest.mark.parametrize("fmt", [Format.CSV, Format.TSV])
def test_names_are_no_formulas_and_no_fields(fmt):
    """A hostile name stays one field, begins no formula and holds no control character."""
    entries = tuple(LedgerEntry(label=label, kind="constant", bytes=1) for label in HOSTILE)
    report = replace(model.Report(runtime="1.5"), ledger=entries)
    rows = _read(rendered(report, fmt), fmt)
    shown = [row["label"] for row in rows]
    assert shown == [
        *('\'=HYPERLINK("http://x")', "'+1", "'-1", "'@x"),
        *("a\ufffdb\ufffdc", 'say "hi", twice', "\ufffd[31m"),
    ]
