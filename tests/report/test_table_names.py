"""Names of tables that a file records, and what reports make of them; whatever the datum holds, a report comes out."""

import io
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vkfuse.commands.report import report_files
from vkfuse.measure.names import DIGITS, KEY, names_datum, table_names
from vkfuse.pte import read_pte
from vkfuse.pte.model import NamedData
from vkfuse.pte.reader import parse_pte
from vkfuse.pte.values import Extent
from vkfuse.pte.writer import write_pte

LEAVES = st.none() | st.integers() | st.text()
JSON = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))


def _with_datum(pte, data):
    """Return the bytes of a file that records `data` as the names of its tables."""
    entry = NamedData(key=KEY, segment_index=0, data=memoryview(data), data_at=Extent(0, len(data)))
    stream = io.BytesIO()
    write_pte(replace(pte, named=(*pte.named, entry)), stream)
    return stream.getvalue()


@pytest.fixture(scope="module")
def tied(files):
    """A file whose lookup and head read packs of their own."""
    return read_pte(files / "tied.pte")


def test_tables_and_lookups_have_their_names(files, tied, tmp_path):
    """Tables of one name are one row, whose bytes are those of both; without names their content tells them apart."""
    before = report_files(files / "tied.pte")
    names = {row.name: "model.embed_tokens.weight" for row in before.tables}
    path = tmp_path / "named.pte"
    path.write_bytes(_with_datum(tied, names_datum(names)))
    report = report_files(path)
    (row,) = report.tables
    assert (row.name, sorted(row.consumers), row.rung) == (
        "model.embed_tokens.weight",
        ["gather", "matmul"],
        "q4",
    )
    assert row.bytes_after == sum(table.bytes_after for table in before.tables)
    assert [lookup.table for lookup in report.lookups] == ["model.embed_tokens.weight"]
    labels = {entry.label: entry.bytes for entry in report.ledger}
    assert labels[f"named data {KEY}"] == len(names_datum(names))
    assert sum(labels.values()) == report.output.bytes


def test_tables_that_one_file_names_are_those_of_the_other(files, tied, tmp_path):
    """Two files of equal tables, of which either records names: no table changed."""
    path = tmp_path / "named.pte"
    names = {
        row.name: f"layers.{at}.weight" for at, row in enumerate(report_files(files / "tied.pte").tables)
    }
    path.write_bytes(_with_datum(tied, names_datum(names)))
    for new, base in ((path, files / "tied.pte"), (files / "tied.pte", path)):
        diff = report_files(new, base).diff
        assert diff.ledger
        assert not diff.tables


def test_a_table_without_a_key_is_hashed(files, tmp_path):
    """A table of the program, which the CPU reads, has no key in the file: its bytes say which it is."""
    import hashlib  # noqa: PLC0415 - the one test that hashes

    pte = read_pte(files / "folded.pte")
    (table,) = (value for value in pte.methods[0].values if getattr(value, "constant", False))
    key = hashlib.sha256(table.data).hexdigest()[:DIGITS]
    path = tmp_path / "named.pte"
    path.write_bytes(_with_datum(pte, names_datum({key: "emb.weight"})))
    assert [row.name for row in report_files(path).tables] == ["emb.weight"]


@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_datum_gives_names_or_none(tied, data):
    """Only text by text is a name; everything else gives none, and no error."""
    names = table_names(parse_pte(_with_datum(tied, data)))
    assert all(isinstance(name, str) and 0 < len(name) <= 1024 for name in names.values())


def test_names_are_bounded(tied):
    """A name longer than a line, more names than 4 MiB, deep nesting and no names at all."""
    many = names_datum({f"{row:012x}": "x" * 1000 for row in range(4200)})
    assert table_names(parse_pte(_with_datum(tied, many))) == {}
    for data in (b"[" * 100_000, names_datum({"a": "x" * 1025}), b"{}", b"", b"\xff{"):
        assert table_names(parse_pte(_with_datum(tied, data))) == {}
    assert table_names(tied) == {}


def test_the_datum_is_the_same_whatever_the_order():
    """Same names, same bytes."""
    assert names_datum({"b": "2", "a": "1"}) == names_datum({"a": "1", "b": "2"}) == b'{"a":"1","b":"2"}'
