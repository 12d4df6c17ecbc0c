"""Tables whose numbers no operator shows are had back from their floats: packed, proved from the file, and right."""

import json
import subprocess
import sys

import pytest
import torch
from programs import Dequantized, LanguageModel, Linear, Lookup, export, indices, quantize
from torch import nn
from torchao.quantization import Float8WeightOnlyConfig, quantize_

import vkfuse
from vkfuse.options import BaselineChoice
from vkfuse.pipeline import inspect
from vkfuse.quiet import quiet

aten = torch.ops.aten


def _on_a_grid(weight, group=32, bits=4):
    """The weights as training with fake quantization leaves them: floats, each an integer times its group's scale."""
    most = 1 << (bits - 1)
    grouped = weight.detach().reshape(weight.shape[0], -1, group)
    scales = grouped.abs().amax(dim=2, keepdim=True) / (most - 0.5)
    integers = (grouped / scales).round().clamp(-most, most - 1) + 0.0  # no negative zeros
    return (integers * scales).reshape(weight.shape)


def _floats_of(module):
    """The module with all of its weights on grids, but floats."""
    for part in module.modules():
        if isinstance(part, nn.Embedding | nn.Linear):
            part.weight = nn.Parameter(_on_a_grid(part.weight))
    return module


def _tied():
    model = _floats_of(LanguageModel(128))
    model.head.weight = model.table.weight
    return export(model, indices(2, 7))


def _half():
    return export(_floats_of(Lookup(128, 64)).half(), indices(2, 7))


def _two_parts():
    """A table that is two quantized ones, one after the other."""
    return export(
        Dequantized(lambda m, x: aten.embedding(torch.cat([m.floats(), m.floats(m.values // 2)]), x)),
        indices(2, 7, rows=128),
    )


def _twice_dequantized():
    """Arithmetic after dequantizing, which keeps a grid where it multiplies by a power of two."""
    return export(Dequantized(lambda m, x: aten.embedding(m.floats() * 2, x)), indices(2, 7, rows=64))


def _decomposed():
    """Torchao's operators decomposed, one row of scales for all."""
    return export(quantize(Lookup(128, 64), nn.Embedding), indices(2, 7)).run_decompositions()


def _eight_bits():
    module = Lookup(128, 64)
    module.table.weight = nn.Parameter(_on_a_grid(module.table.weight, group=64, bits=8))
    return export(module, indices(2, 7))


def _twice():
    """More rows than the one table that is stored, the second half of them its double."""

    def doubled(m, x):
        floats = m.floats()
        return aten.embedding(torch.cat([floats, floats * 2]), x)

    return export(Dequantized(doubled), indices(2, 7, rows=128))


def _padded_rows():
    """Rows of zeros behind those that are stored, as for words that were added."""
    return export(
        Dequantized(lambda m, x: aten.embedding(nn.functional.pad(m.floats(), [0, 0, 0, 8]), x)),
        indices(2, 7, rows=72),
    )


def _first_rows():
    """A head of the first rows of the table that is looked up."""
    return export(
        Dequantized(lambda m, x: aten.linear(aten.embedding(m.floats(), x), m.floats()[:48])),
        indices(2, 7, rows=64),
    )


CASES = {
    "tied floats": (_tied, {"head.weight": "q4", "layer.weight": "q4"}, 4),
    "half floats": (_half, {"table.weight": "q4"}, 4),
    "two parts": (_two_parts, {"values": "q4"}, 4),
    "times two": (_twice_dequantized, {"values": "q4"}, 4),
    "twice": (_twice, {"values": "q4"}, 4),
    "padded rows": (_padded_rows, {"values": "q4"}, 4),
    "eight bits": (_eight_bits, {"table.weight": "gathered"}, 8),
}


@pytest.mark.parametrize("name", CASES)
def test_a_table_of_floats_is_had_back(name, tmp_path):
    """The rung of a quantized table, `grid-found` among what it took, exact from the written bytes; the outputs agree."""
    torch.manual_seed(0)
    build, rungs, bits = CASES[name]
    with quiet():
        exported = build()
    report = vkfuse.optimize(exported, tmp_path / "m.pte", baseline=BaselineChoice.NONE).report
    assert {table.name: table.rung for table in report.tables} == rungs
    for table in report.tables:
        assert table.bits <= bits
        assert "grid-found" in table.how
        assert table.proof.kind == "exact"
    assert report.verify.ok


def test_a_head_of_some_rows(tmp_path):
    """The lookup and the head, too small to be searched, are two tables, each with its rows; the file is right."""
    torch.manual_seed(0)
    with quiet():
        exported = _first_rows()
    report = vkfuse.optimize(exported, tmp_path / "m.pte", baseline=BaselineChoice.NONE).report
    assert [(table.shape[0], table.rung) for table in report.tables] == [(64, "q4"), (48, "folded")]
    assert report.verify.ok


def test_a_grid_that_the_graph_shows_is_not_searched():
    """A decomposed table is read from its operators; its numbers are asked only where these are not the table's."""
    torch.manual_seed(0)
    (table,) = inspect(_decomposed()).report.tables
    assert (table.rung, table.how) == ("q4", ("indices-flattened",))


def test_a_table_near_a_grid_says_how_near():
    """One value off: not readable, with the number of groups that are on the grid; floats of nobody's are no tables."""
    torch.manual_seed(0)

    module = Dequantized(lambda m, x: aten.embedding(torch.cat([m.floats() + m.spot, m.floats()]), x))
    module.register_buffer("spot", torch.zeros(64, 64))
    module.spot[5, 5] = 1e-4
    (table,) = inspect(export(module, indices(2, 7, rows=128))).report.tables
    assert table.rung == "folded"
    assert table.reason.startswith("table-not-readable")
    assert "255 of 256 groups of 32 columns" in table.reason
    assert inspect(export(Linear(), torch.rand(3, 128))).report.tables == ()


class NF4(nn.Module):
    """A linear of 256 x 256 weights whose four bits, two in a byte, stand for levels that are not evenly spaced."""

    def __init__(self):
        super().__init__()
        self.register_buffer("codes", torch.randint(0, 256, (256, 128), dtype=torch.uint8))
        self.register_buffer("levels", torch.linspace(-1, 1, 16) ** 3)
        self.register_buffer("absmax", torch.rand(256, 4, 1))

    def forward(self, x):
        codes = torch.stack([self.codes.int() >> 4, self.codes.int() & 15], -1).long()
        weight = self.levels[codes.flatten(-2)].view(256, 4, 64) * self.absmax
        return nn.functional.linear(x, weight.view(256, 256))


def _float8():
    module = nn.Sequential(nn.Linear(256, 256, bias=False))
    quantize_(module, Float8WeightOnlyConfig())
    return module


@pytest.mark.parametrize(
    ("build", "name", "kind"),
    [(_float8, "0.weight", "float8_e4m3fn"), (NF4, "codes", "uint8")],
    ids=["float8", "nf4"],
)
def test_tables_on_no_grid_have_a_row(tmp_path, build, name, kind):
    """Weights of 8-bit floats and of uneven levels are folded, and that is told: a row, its size, and a larger file."""
    torch.manual_seed(0)
    torch.export.save(export(build().eval(), torch.randn(4, 256)), tmp_path / "m.pt2")
    command = ["vkfuse", "optimize", "m.pt2", "-o", "m.pte", "--baseline", "none", "--format", "json"]
    ran = subprocess.run([sys.executable, "-m", *command], cwd=tmp_path, check=True, stdout=subprocess.PIPE)
    report = json.loads(ran.stdout)
    (table,) = report["tables"]
    assert (table["name"], table["rung"], table["bytes_after"]) == (name, "folded", 1 << 18)
    assert table["reason"].startswith(f"table-not-readable: stored in {kind} that stand for levels")
    assert table["proof"]["kind"] == "exact"
    assert any("262,144 bytes of floats" in note for note in report["notes"])
    assert report["output"]["bytes"] > report["input"]["bytes"]
