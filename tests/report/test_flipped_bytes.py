"""A byte that differs between two files is never silent: every rendering has a row for it."""

import dataclasses
import json

import pytest

from vkfuse.commands.report import report_files
from vkfuse.errors import FormatError
from vkfuse.measure.ledger import parts
from vkfuse.pte import parse_pte, read_pte
from vkfuse.report.build import measure
from vkfuse.report.diff import diff_of
from vkfuse.report.format import Format
from vkfuse.report.model import Report
from vkfuse.report.render import rendered

FILES = ("fused", "folded", "tied", "inline", "mixed")
STRIDE = 199  # prime, so that all places in words and structures come up


def _places(data):
    """Offsets all over a file: every so many bytes, and each label's first, middle and last."""
    places = {*range(0, len(data), STRIDE)}
    for part in parts(parse_pte(data)):
        places |= {part.at.offset, part.at.offset + part.at.size // 2, part.at.end - 1}
    return sorted(places)


def _report(data, base):
    """A diff of a changed file, as `vkfuse report` makes it."""
    new = measure(parse_pte(data))
    return Report(runtime="1.5", ledger=new.ledger, diff=diff_of(new, base))


def _explained(diff):
    """What rows say has changed, by label."""
    return {change.label for change in (*diff.ledger, *diff.contents)}


@pytest.mark.parametrize("name", FILES)
def test_every_flipped_byte_has_a_row(name, files):
    """One bit of a byte anywhere in the file: a row in text, markdown and JSON, or a file that cannot be read."""
    data = (files / f"{name}.pte").read_bytes()
    base, seen, unreadable = measure(parse_pte(data)), 0, 0
    for at in _places(data):
        changed = bytearray(data)
        changed[at] ^= 1 << at % 8
        try:
            report = _report(bytes(changed), base)
        except FormatError:
            unreadable += 1
            continue
        seen += 1
        labels = _explained(report.diff)
        assert labels, f"byte {at} of {len(data)}"
        assert not report.diff.identical
        for format_ in (Format.TEXT, Format.MARKDOWN):
            text = rendered(report, format_, width=1000)
            assert "Same size, other content" in text or "Changed bytes" in text, f"byte {at}"
        written = json.loads(rendered(report, Format.JSON))["diff"]
        assert {row["label"] for row in (*written["ledger"], *written["contents"])} == labels
    assert seen > unreadable


def test_one_byte_is_counted(files):
    """The row of a changed weight says where, how many bytes, and that its table holds other numbers."""
    data = (files / "fused.pte").read_bytes()
    pte = parse_pte(data)
    (weight,) = (part for part in parts(pte) if "embedding_q4gsw weight" in str(part.label))
    changed = bytearray(data)
    changed[weight.at.offset + 5] ^= 0x10
    diff = diff_of(measure(parse_pte(bytes(changed))), measure(pte))
    (row,) = diff.contents
    assert dataclasses.astuple(row) == (
        *("vulkan:forward embedding_q4gsw weight uint8[64,32]", "constant", 2048, 1, 1, 1),
    )
    (table,) = diff.tables
    assert table.after == f"{table.before}, other content"
    assert (diff.ledger, diff.operators, diff.identical) == ((), (), False)


def test_equal_parts_in_another_order(files):
    """Two weights of one label that changed places are seen: parts are compared by their use."""
    pte = read_pte(files / "tied.pte")
    one, other = (part.at for part in parts(pte) if part.kind == "constant" and part.at.size == 2048)
    data = bytearray(pte.data)
    data[one.offset : one.end], data[other.offset : other.end] = (
        pte.data[other.offset : other.end],
        pte.data[one.offset : one.end],
    )
    changes = diff_of(measure(parse_pte(bytes(data))), measure(pte)).contents
    assert sorted(change.bytes for change in changes) == [2048, 2048]


def test_the_command_shows_it(files, tmp_path):
    """Through `report_files`: the same file is identical, one with another byte in its program has a row for that."""
    data = (files / "fused.pte").read_bytes()
    program = next(part.at for part in parts(parse_pte(data)) if part.kind == "program")
    for at in range(program.end - 1, program.offset, -1):
        changed = bytearray(data)
        changed[at] ^= 1
        (tmp_path / "new.pte").write_bytes(changed)
        try:
            diff = report_files(tmp_path / "new.pte", files / "fused.pte").diff
        except FormatError:
            continue
        assert "program" in {change.label for change in (*diff.contents, *diff.ledger)}
        return
    raise AssertionError("no byte of the program can change")
