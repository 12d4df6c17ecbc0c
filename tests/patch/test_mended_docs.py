"""The table of what is mended stands in the document as it was recorded."""

from pathlib import Path

from mended import table

DOCS = Path(__file__).parents[2] / "docs" / "patch.md"


def test_the_table_is_the_record():
    """Made by `python tests/patch/mended.py` from tests/patch/mended.json."""
    text = DOCS.read_text("utf-8")
    between = text.partition("<!-- mended -->\n")[2].partition("\n<!-- /mended -->")[0]
    assert between == table()
