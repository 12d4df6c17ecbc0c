"""docs/models.md is the zoo's: a row for every setting, none that does not load, none that is far off."""

import re
from pathlib import Path

import zoo

DOCUMENT = Path(__file__).parents[2] / "docs" / "models.md"


def _rows():
    lines = DOCUMENT.read_text("utf-8").splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    return [row for row in cells if len(row) == 13 and row[0] != "model"]


def test_the_table_is_complete():
    """The settings of the document are the zoo's, in its order."""
    named = [
        (
            s.architecture.name,
            s.weights,
            s.length,
            s.attention if s.architecture.attends else "",
            str(s.batch),
        )
        for s in zoo.settings()
    ]
    assert [tuple(row[:5]) for row in _rows()] == named


def test_every_row_is_as_promised():
    """Smaller than before, one delegate, loadable, and near the program."""
    for *_, before, after, parts, _, _, loadable, error, _ in _rows():
        assert int(after) < int(before)
        assert (parts, loadable) == ("1", "yes")
        assert re.fullmatch(r"[0-9.e-]+", error)
        assert float(error) < 0.1


def test_rows_in_half_precision_are_of_the_zoo():
    """As far as the document has them: one for each setting, loadable, near the program or said to be refused."""
    lines = DOCUMENT.read_text("utf-8").splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    rows = [row for row in cells if len(row) == 14 and row[0] != "model"]
    assert len(rows) in {0, len(zoo.settings())}
    for *_, loadable, verdict, error, tables, _ in rows:
        assert loadable == "yes"
        assert verdict in {"right", "refused"}
        assert verdict == "refused" or float(error) < 0.1
        assert float(tables) < 0.1
