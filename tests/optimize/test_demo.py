"""The demo decoder: right at every length, as small as its 4-bit weights allow."""

import pytest
import torch
from outcome import worst_error
from typer.testing import CliRunner

import vkfuse.demo
from vkfuse.cli import app
from vkfuse.demo import DecoderConfig, quantized_decoder
from vkfuse.measure.ledger import ledger
from vkfuse.options import BaselineChoice, Options
from vkfuse.pipeline import optimize
from vkfuse.pte import read_pte
from vkfuse.quiet import quiet

SMALL = DecoderConfig(vocabulary=127, width=64, heads=4, key_heads=2, hidden=96, layers=1, longest=32)
ROUNDED = 2e-2  # activations that round to a neighbour, of 256 steps
SCALE, SUM = 4, 4  # bytes of a float32 scale, and of the int32 sum of a group of weights beside it
ONE = 2  # bytes of a scale of one, in half precision
FORMER = 24_446_468  # bytes of the demo's file with scales of the lookup beside those of the head


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """What `vkfuse demo FOLDER` printed for a small decoder, and the folder."""
    folder = tmp_path_factory.mktemp("demo") / "new"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vkfuse.demo, "DecoderConfig", lambda: SMALL)
        ran = CliRunner().invoke(app, ["demo", str(folder)], catch_exceptions=False)
    assert ran.exit_code == 0
    return ran.stdout, folder


def test_demo_command_writes_both_files(small):
    """A program, a file for Vulkan with one delegate, and a report of both."""
    printed, folder = small
    assert {path.name for path in folder.iterdir()} == {"model.pt2", "model.pte"}
    assert str(folder / "model.pte") in printed
    assert "embedding.weight" in printed
    assert "made of the written file" in " ".join(printed.split())
    assert [delegate.id for delegate in read_pte(folder / "model.pte").methods[0].delegates] == [
        "VulkanBackend"
    ]


def test_decoder_is_right_at_every_length(small):
    """Rotary embedding, grouped queries, causal mask and a tied head of 127 rows, at the shortest and longest input."""
    _, folder = small
    exported = torch.export.load(folder / "model.pt2")
    lengths = [(torch.randint(0, SMALL.vocabulary, (SMALL.batch, n)),) for n in (1, 7, SMALL.longest)]
    assert worst_error(exported, folder / "model.pte", lengths) < ROUNDED


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """The file of the demo decoder at its full size, and the report's tables."""
    path = tmp_path_factory.mktemp("demo") / "model.pte"
    with quiet():
        exported = quantized_decoder(DecoderConfig())
    options = Options(baseline=BaselineChoice.NONE, verify=False)
    tables = optimize(exported, path, options).report.tables
    return exported, read_pte(path), tables


def _needed(exported, tables):
    """Bytes of the packs, each once; of scales and group sums as each operator takes them; of all other weights."""
    quantized = 0
    for table in tables:
        rows, columns = table.shape
        groups = rows * columns // table.group_size
        quantized += rows * columns // 2 + groups * (SCALE + SUM)
        quantized += rows * ONE if "gather" in table.consumers else 0
    floats = [t for t in exported.state_dict.values() if type(t.data) is torch.Tensor]
    return quantized + sum(t.numel() * t.element_size() for t in floats)


def test_full_size_is_what_the_weights_need(full):
    """At most 1% over packed tables, scales, each once, and what else the operators store; the ledger names every byte."""
    exported, pte, tables = full
    assert [table.shape for table in tables if "gather" in table.consumers] == [(32000, 640)]
    assert {table.rung for table in tables} == {"q4"}
    needed = _needed(exported, tables)
    assert needed <= pte.size <= 1.01 * needed
    assert pte.size <= 0.90 * FORMER
    entries = ledger(pte)
    assert sum(entry.bytes for entry in entries) == pte.size
    packs = [entry for entry in entries if "uint8[32000,320]" in entry.label]
    assert [(entry.count, entry.bytes) for entry in packs] == [(1, 32000 * 320)]
    assert "embedding_q4gsw" in packs[0].label
    assert "linear_dq8ca_q4gsw" in packs[0].label
