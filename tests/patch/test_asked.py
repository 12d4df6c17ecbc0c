"""Tables of floats of a file that become integers because a user asks for it."""

import json
import shlex

import numpy as np
import pytest
from test_bytes import _write
from test_optimize_file import run

from vkfuse import optimize
from vkfuse.errors import VkfuseError
from vkfuse.measure.stored import stored_tables, whole_tables
from vkfuse.measure.tables import table_reads
from vkfuse.options import Options
from vkfuse.patch.stages import inspect_file
from vkfuse.pte import read_pte


def _table(path):
    """The largest looked-up table of a file, as its lookup reads it."""
    tables = [table for table in whole_tables(table_reads(read_pte(path))) if table.consumer == "gather"]
    return max((table.read(0, table.rows) for table in tables), key=len)


@pytest.mark.parametrize(
    ("setting", "rung", "bits", "most"), [("int4:32", "q4", 4, 0.09), ("int8", "gathered", 8, 0.007)]
)
def test_quantized_embedding(files, tmp_path, setting, rung, bits, most):
    """Floats on no grid become integers; the report says what that lost, which is how far the file's table is off."""
    source, made, report = files / "folded.pte", tmp_path / "m.pte", tmp_path / "report.json"
    run("optimize", source, "-o", made, "-q", "--report", report, "--quantize-embedding", setting)
    said = json.loads(report.read_text())
    (row,), (lost,) = said["tables"], said["losses"]
    assert (row["rung"], row["bits"], row["proof"]["kind"]) == (rung, bits, "exact")
    assert (lost["name"], lost["how"]) == (row["name"], setting)
    floats, kept = _table(source), _table(made)
    off = np.sqrt(np.square(floats - kept).mean() / np.square(floats).mean())
    assert off == pytest.approx(lost["relative_rms"], rel=1e-3)
    assert 0 < off < most
    assert np.abs(floats - kept).max() == pytest.approx(lost["max_abs_error"], rel=1e-3)


def test_choices_by_name_and_ties(files, tmp_path):
    """A lookup alone, a linear with the same floats where it is tied, or what a name matches; nothing that is on a grid."""
    floats = np.random.default_rng(0).standard_normal((96, 64)).astype(np.float32)
    source = tmp_path / "in.pte"
    _write(source, files / "fused.pte", (1, 7), 96, floats, floats)
    (name,) = (row.name for row in inspect_file(read_pte(source), Options()).report.tables)
    found = {}
    for label, asked in (
        ("lookup", {"quantize_embedding": "int4:32"}),
        ("tied", {"quantize_embedding": "int4:32", "tie": True}),
        ("named", {"quantize": [f"{name}=int8"]}),
    ):
        report = optimize(source, tmp_path / f"{label}.pte", **asked).report
        found[label] = [(row.consumers, row.rung) for row in report.tables]
        assert len(report.losses) == 1
    assert found["lookup"] == [(("gather",), "q4")]
    assert found["tied"] == [(("gather", "matmul"), "q4")]
    assert found["named"] == [(("gather", "matmul"), "gathered")]
    tables = [*stored_tables(table_reads(read_pte(tmp_path / "tied.pte")))]
    assert len({table.weight.name for table in tables}) == 1
    for asked in ({"quantize": ["nothing=int4:32"]}, {"quantize_embedding": "int4:48"}):
        with pytest.raises(VkfuseError, match="no table of floats is meant"):
            optimize(source, tmp_path / "none.pte", **asked)
    with pytest.raises(VkfuseError, match="no table of floats is meant"):
        optimize(tmp_path / "tied.pte", tmp_path / "none.pte", quantize_embedding="int4:32")


def test_a_tied_lookup_shares_scales(files, tmp_path):
    """A product and a lookup of the same floats: the lookup reads the scales that the product stores, the same table."""
    floats = np.random.default_rng(0).standard_normal((36000, 64)).astype(np.float32)
    source, made = tmp_path / "in.pte", tmp_path / "m.pte"
    _write(source, files / "fused.pte", (1, 7), 36000, floats, floats)
    report = optimize(source, made, quantize_embedding="int4:32", tie=True).report
    (row,), (lost,) = report.tables, report.losses
    assert "scales-shared" in row.how
    assert row.proof.kind == "exact"
    reads = table_reads(read_pte(made))
    turned = [read for read in reads if read.reader.turned]
    shared = {constant.name for read in turned for constant in read.constants}
    others = [constant.nbytes for read in reads for constant in read.constants if constant.name not in shared]
    assert others == [36000 * 2]  # scales of one
    assert np.abs(floats - _table(made)).max() == pytest.approx(lost.max_abs_error, rel=1e-3)


def test_what_if(files, tmp_path):
    """A file's table of floats at other settings, as the option then makes it; of a file without any a note says so."""
    floats = np.random.default_rng(0).standard_normal((96, 64)).astype(np.float32)
    source, report = tmp_path / "in.pte", tmp_path / "report.json"
    _write(source, files / "fused.pte", (1, 7), 96, floats, floats)
    run("inspect", source, "-q", "--what-if", "--report", report)
    said = json.loads(report.read_text())
    assert [row["setting"] for row in said["what_if"]] == ["int4:32", "int4:64", "int8"]
    told = said["what_if"][0]
    assert (told["bytes_before"], told["bytes_after"]) == (96 * 64 * 4, 96 * (32 + 2 * 2))
    option, choice = shlex.split(told["option"])
    run("optimize", source, "-o", tmp_path / "m.pte", "-q", "--report", report, option, choice)
    made = json.loads(report.read_text())["losses"][0]
    assert made["relative_rms"] == pytest.approx(told["relative_rms"])
    run("inspect", files / "fused.pte", "-q", "--what-if", "--report", report)
    assert "what if: no table" in json.loads(report.read_text())["notes"][-1]
