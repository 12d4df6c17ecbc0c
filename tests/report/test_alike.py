"""Rows of equal layers as one row, and the bits that a weight takes."""

from dataclasses import replace

import pytest

from vkfuse.commands.report import Scope, report_files
from vkfuse.measure.weights import weights
from vkfuse.pte import read_pte
from vkfuse.report import model
from vkfuse.report.alike import condensed
from vkfuse.report.format import Format
from vkfuse.report.render import rendered


def _tables(row, names, **change):
    return tuple(replace(row, name=name, **change) for name in names)


def test_equal_layers_are_one_row(full):
    """Names that differ in a number, tables that differ in nothing else: sizes are summed, the weakest proof counts."""
    exact = full.tables[0]
    layers = _tables(exact, [f"layers.{n}.mlp.w1.weight" for n in range(12)])
    loose = replace(
        exact, name="layers.12.mlp.w1.weight", proof=model.Proof(kind="exact", max_abs_error=0.0), bits=8
    )
    hashes = _tables(exact, ["0123456789ab", "1123456789ab"])
    several = _tables(exact, ["blocks.1.experts.3.w", "blocks.1.experts.4.w"])
    rounded = [
        replace(exact, name=f"r.{n}", proof=model.Proof(kind="rounded", max_abs_error=n / 10)) for n in (1, 2)
    ]
    report = replace(full, tables=(*layers, loose, *hashes, *several, *rounded))
    rows = {row.name: row for row in condensed(report).tables}
    assert [*rows] == [
        "layers.*.mlp.w1.weight x12",
        "layers.12.mlp.w1.weight",
        "0123456789ab x2",
        "blocks.1.experts.*.w x2",
        "r.* x2",
    ]
    merged = rows["layers.*.mlp.w1.weight x12"]
    assert (merged.bytes_before, merged.bytes_after) == (12 * exact.bytes_before, 12 * exact.bytes_after)
    assert merged.bits_per_weight == pytest.approx(exact.bits_per_weight)
    assert rows["r.* x2"].proof == model.Proof(kind="rounded", max_abs_error=0.2)


def test_changes_of_equal_layers_are_one_row(full):
    """Tables that changed in the same way are one change."""
    rows = tuple(
        model.TableChange(name=f"layers.{n}.w", before="a", after="b" if n else "c", delta=8)
        for n in range(4)
    )
    changes = condensed(replace(full, diff=replace(full.diff, tables=rows))).diff.tables
    assert [(row.name, row.after, row.delta) for row in changes] == [
        ("layers.0.w", "c", 8),
        ("layers.*.w x3", "b", 24),
    ]


def test_all_shows_each(full):
    """Text and markdown have one row for equal layers, each row with `every`; the other formats always have each."""
    report = replace(full, tables=_tables(full.tables[0], [f"layers.{n}.w.weight" for n in range(30)]))
    for fmt in (Format.TEXT, Format.MARKDOWN):
        few, every = (rendered(report, fmt, every=every).replace("\\", "") for every in (False, True))
        assert "layers.*.w.weight x30" in few
        assert "layers.29.w.weight" not in few
        assert "x30" not in every
        assert all(f"layers.{n}.w.weight" in every for n in range(30))
    for fmt in (Format.JSON, Format.HTML):
        assert "layers.29.w.weight" in rendered(report, fmt)


def test_bits_a_weight(files):
    """Scales and all: 4 bits and a float for 32 of them are 5; the file's own bytes are of all its weights."""
    report = report_files(files / "tied.pte")
    assert [(row.bits, row.bits_per_weight) for row in report.tables] == [(4, 5.0), (4, 5.0)]
    assert report.output.weights == 2 * 64 * 64 + 64
    assert report.output.bits_per_weight == pytest.approx(
        8 * report.output.bytes / report.output.weights, abs=1e-4
    )
    assert weights(read_pte(files / "folded.pte")) == 64 * 64
    assert report_files(files / "external.pte").output.bits_per_weight is None
    both = report_files(files / "external.pte", scope=Scope(ptd=(files / "external.ptd",))).output
    assert both.weights == 64 * 64
    assert both.bits_per_weight == pytest.approx(8 * (both.bytes + 4 * 64 * 64) / 64**2, abs=1e-4)
    assert "Bits" in rendered(report, Format.TEXT)


def test_a_report_without_the_hash(files):
    """The hash is empty and nothing else is different."""
    plain = report_files(files / "tied.pte", scope=Scope(hashed=False))
    whole = report_files(files / "tied.pte")
    assert plain.output.sha256 == ""
    assert replace(plain, output=replace(plain.output, sha256=whole.output.sha256)) == whole
