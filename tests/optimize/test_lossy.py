"""What is lost only when asked: tables of floats as integers, scales in half precision."""

import json
import shlex

import numpy as np
import pytest
import torch
from outcome import worst_error
from programs import LanguageModel, export, indices, quantize
from torch import nn
from typer.testing import CliRunner

import vkfuse
from vkfuse.cli import app
from vkfuse.errors import VkfuseError
from vkfuse.options import BaselineChoice
from vkfuse.quiet import quiet

ROWS, COLUMNS = 512, 64


def _model(dtype=torch.float32):
    """A tied language model of floats."""
    torch.manual_seed(0)
    module = LanguageModel(ROWS, COLUMNS)
    module.head.weight = module.table.weight
    return module.to(dtype).eval()


def _program(module):
    with quiet():
        return export(module, indices(2, 7, rows=ROWS))


def _written(tmp_path, module, *options):
    """The report of a run of the command line, and its exit code."""
    source, report = tmp_path / "model.pt2", tmp_path / "report.json"
    torch.export.save(_program(module), source)
    arguments = ["optimize", source, "-o", tmp_path / "model.pte", "--baseline", "none", "--report", report]
    ran = CliRunner().invoke(app, [*map(str, arguments), *options])
    return ran, json.loads(report.read_text()) if report.exists() else None


@pytest.mark.parametrize("tie", [False, True])
def test_an_embedding_on_the_command_line(tie, tmp_path):
    """The table is fused, exact against the changed program; the report has what table and outputs lost."""
    module = _model()
    ran, report = _written(tmp_path, module, "--quantize-embedding", "int4:32", *(["--tie"] if tie else []))
    assert ran.exit_code == 0, ran.output
    (table,) = (row for row in report["tables"] if row["rung"] == "q4")
    assert table["proof"] == {"kind": "exact", "max_abs_error": 0.0}
    assert table["consumers"] == (["gather", "matmul"] if tie else ["gather"])
    assert table["bytes_after"] == ROWS * (COLUMNS // 2 + 2 * (2 + (4 if tie else 0)))
    assert report["verify"]["ok"]
    lost_table, lost_output = report["losses"]
    assert (lost_table["what"], lost_table["how"], lost_output["what"]) == ("table", "int4:32", "output")
    assert 0.05 < lost_table["relative_rms"] < 0.09
    given = torch.export.load(tmp_path / "model.pt2")
    error = worst_error(given, tmp_path / "model.pte")
    with torch.no_grad():
        largest = float(given.module()(*given.example_inputs[0]).abs().max())
    assert error * largest == pytest.approx(lost_output["max_abs_error"], rel=1e-3)


def test_linears_by_name(tmp_path):
    """A regular expression takes linears too; the last choice that takes a name counts."""
    program = _program(_model())
    report = vkfuse.optimize(
        program,
        tmp_path / "model.pte",
        baseline=BaselineChoice.NONE,
        quantize=(".*=int8", r"layer\..*=int4:32:torchao"),
    ).report
    assert {row.name: row.how for row in report.losses if row.what == "table"} == {
        "head.weight": "int8",
        "layer.weight": "int4:32:torchao",
    }
    assert sorted(row.rung for row in report.tables) == ["gathered", "q4"]
    assert report.verify.ok


def test_scales_in_half_precision(tmp_path):
    """Scales that are no halves become so for all readers of the table, and the report says what that lost."""
    module = quantize(quantize(_model(), nn.Embedding), nn.Linear)
    ran, report = _written(tmp_path, module, "--scales", "half")
    assert ran.exit_code == 0, ran.output
    table = report["tables"][0]
    assert "half-scales" in table["how"]
    assert table["proof"]["kind"] == "exact"
    assert [row["how"] for row in report["losses"]] == ["half scales", ""]
    assert all(0 < row["relative_rms"] < 2.0**-11 for row in report["losses"])


def test_nothing_is_lost_unless_asked(tmp_path):
    """A float program keeps its floats, bit for bit, and has no losses."""
    module = _model()
    ran, report = _written(tmp_path, module)
    assert ran.exit_code == 0, ran.output
    assert report["losses"] == []
    table = module.table.weight.detach().numpy()
    assert np.ascontiguousarray(table).tobytes() in (tmp_path / "model.pte").read_bytes()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--quantize-embedding", "int4:48"], "no table of floats is meant"),
        (["--quantize", "nothing=int4:32"], "no table of floats is meant"),
        (
            ["--quantize", "nothing=int4:32", "--quantize", ".*=int8"],
            "is meant by --quantize nothing=int4:32",
        ),
        (["--quantize-embedding", "int4:32", "--exact"], "cannot be answered"),
        (["--scales", "half", "--exact"], "cannot be answered"),
        (["--quantize-embedding", "int3"], "is no setting"),
    ],
)
def test_what_cannot_be_asked(options, said, tmp_path):
    """Exit code 2, with the reason; nothing is written."""
    ran, report = _written(tmp_path, _model(), *options)
    told = ran.output + str(ran.exception)
    assert said in told
    assert report is None
    assert not (tmp_path / "model.pte").exists()


def test_options_of_python_are_of_their_types():
    """A setting that is none is an error of the option, by its name."""
    with pytest.raises(VkfuseError, match="the option quantize_embedding: 'int3' is no setting"):
        vkfuse.optimize(_program(_model()), "unwritten.pte", quantize_embedding="int3")


def test_what_if(tmp_path):
    """Each float table at each setting that fits it: bytes and error, and an option that does just that."""
    source, report = tmp_path / "model.pt2", tmp_path / "report.json"
    torch.export.save(_program(_model()), source)
    ran = CliRunner().invoke(app, ["inspect", str(source), "--what-if", "--report", str(report)])
    assert ran.exit_code == 0, ran.output
    rows = json.loads(report.read_text())["what_if"]
    assert {(row["table"], row["setting"]) for row in rows} == {
        (table, setting)
        for table in ("head.weight", "layer.weight")
        for setting in ("int4:32", "int4:64", "int8")
    }
    told = next(row for row in rows if (row["table"], row["setting"]) == ("head.weight", "int4:32"))
    assert told["bytes_before"] == ROWS * COLUMNS * 4
    assert told["bytes_after"] == ROWS * (COLUMNS // 2 + 2 * 2)
    (option, choice) = shlex.split(told["option"])
    done, made = _written(tmp_path, _model(), option, choice)
    assert done.exit_code == 0, done.output
    assert made["losses"][0]["relative_rms"] == pytest.approx(told["relative_rms"])


@pytest.mark.parametrize("tie", [False, True])
def test_what_if_of_scales(tie, tmp_path):
    """A quantized table whose scales are no halves: what they would take and lose as such, as a run then does."""
    module = quantize(LanguageModel(ROWS, COLUMNS), nn.Embedding)
    if tie:
        module.head.weight = module.table.weight
    source, report = tmp_path / "model.pt2", tmp_path / "what-if.json"
    torch.export.save(_program(module), source)
    ran = CliRunner().invoke(app, ["inspect", str(source), "--what-if", "--report", str(report)])
    assert ran.exit_code == 0, ran.output
    plan = json.loads(report.read_text())
    (told,) = (row for row in plan["what_if"] if row["setting"] == "half scales")
    assert told["option"] == "--scales half"
    before = next(row["bytes_after"] for row in plan["tables"] if row["name"] == told["table"])
    done, made = _written(tmp_path, module, *shlex.split(told["option"]))
    assert done.exit_code == 0, done.output
    after = next(row["bytes_after"] for row in made["tables"] if row["name"] == told["table"])
    assert (told["bytes_before"], told["bytes_after"]) == (before, after)
    assert made["losses"][0]["relative_rms"] == pytest.approx(told["relative_rms"])
