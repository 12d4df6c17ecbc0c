"""`--check-indices`: a call fails where an index is outside of its table, as torch's does.

The verdicts are those of the 1.5.0 runtime: InvalidArgument for each index outside, in each of these programs.
"""

import json

import pytest
import torch
from outcome import worst_error
from programs import Dequantized, Lookup, export, indices, quantize
from torch import nn
from torch.export import Dim
from typer.testing import CliRunner

import vkfuse
from vkfuse.cli import app
from vkfuse.errors import VkfuseError
from vkfuse.verify.errors import ExecutionError
from vkfuse.verify.session import run_file

ROWS = 64
OUTSIDE = (ROWS, ROWS + 5, -1, -ROWS - 1, 2**31 - 1)


class _Two(nn.Module):
    """Two tables, the second with fewer rows, by the same indices."""

    def __init__(self):
        super().__init__()
        self.words, self.kinds = nn.Embedding(ROWS, 64), nn.Embedding(10, 64)

    def forward(self, tokens):
        return self.words(tokens) + self.kinds(tokens.remainder(10))


def _indexed(use):
    return lambda: export(Dequantized(use), indices(8, rows=ROWS))


PROGRAMS = {
    "an embedding of rows": lambda: export(quantize(Lookup(ROWS), nn.Embedding), indices(2, 8, rows=ROWS)),
    "two tables, int32": lambda: export(
        quantize(_Two(), nn.Embedding), indices(8, rows=ROWS, dtype=torch.int32)
    ),
    "any length": lambda: export(
        quantize(Lookup(ROWS), nn.Embedding),
        indices(1, 8, rows=ROWS),
        dynamic=({1: Dim("length", max=32)},),
    ),
    "floats": lambda: export(Lookup(ROWS), indices(8, rows=ROWS)),
    "bags": lambda: export(nn.EmbeddingBag(ROWS, 64, mode="mean"), indices(3, 8, rows=ROWS)),
    "index": _indexed(lambda table, x: table.floats()[x]),
    "index_select": _indexed(lambda table, x: table.floats().index_select(0, x)),
    "gather": _indexed(lambda table, x: table.floats().gather(0, x.unsqueeze(-1).expand(-1, 64))),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_call_fails(name, tmp_path):
    """Tables stay what they were, results too; an index outside ends the call, one from the end where torch counts so."""
    torch.manual_seed(0)
    exported, path = PROGRAMS[name](), tmp_path / "model.pte"
    unchecked = vkfuse.optimize(exported, tmp_path / "unchecked.pte", baseline="none", runtime="1.5.0").report
    report = vkfuse.optimize(exported, path, baseline="none", runtime="1.5.0", check_indices=True).report
    assert [(row.rung, row.how) for row in report.tables] == [(row.rung, row.how) for row in unchecked.tables]
    assert "indices-checked" in {repair.code for repair in report.repairs}
    assert worst_error(exported, path) < 1e-6
    (given,) = exported.example_inputs[0]
    session, eager = run_file(path), exported.module()
    for index in OUTSIDE:
        tokens = given.clone()
        tokens.view(-1)[3] = index
        if name == "index" and -ROWS <= index < ROWS:
            torch.testing.assert_close(session((tokens,))[0], eager(tokens))
            continue
        with pytest.raises(ExecutionError, match="aten::embedding"):
            session((tokens,))


def test_known_indices_are_not_checked(tmp_path):
    """Neither are those of other tensors than tables."""
    exported = export(Dequantized(lambda table, x: table.floats()[torch.arange(4)] @ x), torch.rand(64, 3))
    report = vkfuse.optimize(exported, tmp_path / "model.pte", baseline="none", check_indices=True).report
    assert "indices-checked" not in {repair.code for repair in report.repairs}


def test_on_the_command_line(tmp_path):
    """The option is the report's; a .pte has no program to change."""
    source, report, made = tmp_path / "model.pt2", tmp_path / "report.json", tmp_path / "model.pte"
    torch.export.save(PROGRAMS["any length"](), source)
    arguments = ["optimize", source, "-o", made, "--check-indices", "--report", report, "-q"]
    ran = CliRunner().invoke(app, [*map(str, arguments)])
    assert ran.exit_code == 0, ran.output
    assert "indices-checked" in {repair["code"] for repair in json.loads(report.read_text())["repairs"]}
    refused = CliRunner().invoke(
        app, [*map(str, ["optimize", made, "-o", tmp_path / "again.pte"]), "--check-indices"]
    )
    assert isinstance(refused.exception, VkfuseError)
    assert refused.exception.message.startswith("--check-indices changes a program")
