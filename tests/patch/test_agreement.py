"""A program, and the file that it was lowered to before there was a fused lookup, come to the same."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import agreement  # noqa: E402 - the tool's own

RECORD = json.loads(agreement.RECORD.read_text("utf-8"))


def test_program_and_folded_file_agree(program, tmp_path):
    """The .pt2 and its kept baseline are optimized to the same tables on the same rungs, bytes within 1%."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    folded, reports = tmp_path / "folded.pte", []
    for source, more in ((program, ["--keep-baseline", folded]), (folded, [])):
        report = tmp_path / f"{source.stem}.json"
        command = [
            sys.executable,
            "-m",
            "vkfuse",
            "optimize",
            source,
            "-o",
            tmp_path / "m.pte",
            "-q",
            "--report",
            report,
        ]
        subprocess.run([*map(str, [*command, *more])], check=True, env=environment)
        reports.append(json.loads(report.read_text()))
    tables = [
        [
            (row["shape"], row["rung"], row["bits"], row["group_size"], row["proof"]["kind"])
            for row in of["tables"]
        ]
        for of in reports
    ]
    assert tables[0] == tables[1] == [([100, 64], "q4", 4, 32, "exact")]
    sizes = [of["output"]["bytes"] for of in reports]
    assert abs(sizes[1] - sizes[0]) < max(sizes) * 0.01 + 1024  # names of tables, and gaps between segments
    assert reports[1]["delegation"]["cpu"] == reports[0]["delegation"]["cpu"] == {}


def test_recorded_programs_agree():
    """MiniLM, the demo and six of the zoo: the same tables on the same rungs, kernels on the CPU, bytes within 1%."""
    assert {"minilm", "demo"} < {row["name"] for row in RECORD}
    assert len(RECORD) >= 8
    for row in RECORD:
        assert agreement.quantized(row["tables"]) == row["of_file"], row["name"]
        ours, theirs = ({k for k in row[key] if "prim::" not in k} for key in ("cpu", "cpu_of_file"))
        shared = (
            {"aten::add.out"} if row["name"] == "demo" else set()
        )  # places of scales: a file's delegate adds
        assert ours - theirs == shared
        assert not theirs - ours
        assert abs(agreement.apart(row)) < 0.01
        most = 4 * 640 if shared else 32  # where each column's scales start; a scalar
        assert abs(row["ledger"]["constant"]) <= most


def test_the_table_of_the_document():
    """docs/patch.md has the record, as `python tools/agreement.py --document` writes it."""
    text = agreement.DOCUMENT.read_text("utf-8")
    assert text.partition(agreement.MARKS[0])[2].partition(agreement.MARKS[1])[0] == agreement.table(RECORD)


def test_bytes_agree():
    """Tables of 8 bits: a lookup and a linear, from the program and from its folded file."""
    import torch  # noqa: PLC0415 - seconds
    from torch import nn  # noqa: PLC0415
    from torchao.quantization import IntxWeightOnlyConfig, quantize_  # noqa: PLC0415
    from torchao.quantization.granularity import PerAxis  # noqa: PLC0415

    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(300, 64), nn.Tanh(), nn.Linear(64, 96)).eval()
    config = IntxWeightOnlyConfig(weight_dtype=torch.int8, granularity=PerAxis(0))
    quantize_(model, config, lambda part, _: isinstance(part, nn.Embedding | nn.Linear))
    row = agreement.agreement("bytes", torch.export.export(model, (torch.arange(10).reshape(2, 5),)))
    assert row["tables"] == row["of_file"] == [[96, 64, "q8", 8], [300, 64, "gathered", 8]]
    assert row["bytes_of_file"] < row["bytes"]
    assert row["folded"] > 2 * row["bytes"]


def test_scales_agree(tmp_path):
    """A lookup tied to a head, both sizes of its indices dynamic: both share the head's scales; the same results."""
    import torch  # noqa: PLC0415 - seconds
    from programs import BOTH, LanguageModel, export, indices, quantize  # noqa: PLC0415
    from torch import nn  # noqa: PLC0415

    import vkfuse  # noqa: PLC0415
    from vkfuse.measure.weights import weights  # noqa: PLC0415
    from vkfuse.program.load import from_exported  # noqa: PLC0415
    from vkfuse.pte.reader import read_pte  # noqa: PLC0415
    from vkfuse.report.file_tables import tables_of  # noqa: PLC0415
    from vkfuse.verify.session import run_file  # noqa: PLC0415
    from vkfuse.verify.verify import VerifyOptions, verify_file  # noqa: PLC0415

    model = LanguageModel(12000)
    model.head.weight = model.table.weight
    quantize(quantize(model, nn.Embedding), nn.Linear)
    exported = export(model, indices(2, 7), dynamic=BOTH)
    written, folded, again = paths = [tmp_path / f"{name}.pte" for name in ("written", "folded", "again")]
    ours = vkfuse.optimize(exported, written, keep_baseline=folded, names=False, verify=False).report
    for report in (ours, vkfuse.optimize(folded, again).report):
        (row,) = (row for row in report.tables if row.shape == (12000, 64))
        assert "scales-shared" in row.how
        assert row.proof.kind == "exact"
    assert again.stat().st_size == pytest.approx(written.stat().st_size, rel=0.01)
    verdict = verify_file(written, from_exported(exported).exported, VerifyOptions(seeds=1))
    assert verdict.ok
    assert all(
        table.matches for table in verdict.tables
    )  # the scales that it looks up are no table of their own
    file = read_pte(written)
    assert weights(file) < 1.01 * 12000 * 64
    assert [(row.shape, row.group_size) for row in tables_of(file)] == [
        ((12000, 64), 32),
        ((64, 64), 32),
    ]
    sessions = [run_file(path) for path in paths]
    for sizes in ((1, 1), (2, 7), (3, 5)):
        tokens = indices(*sizes, rows=12000)
        first, *others = (session([tokens])[0] for session in sessions)
        assert all(torch.equal(first, other) for other in others)
