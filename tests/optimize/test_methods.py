"""Several programs in one file: tables laid out for all of them, state that they share, one verdict."""

from functools import cache

import pytest
import torch
from programs import LanguageModel, Linear, Lookup, export, indices, quantize
from torch import nn

import vkfuse
from vkfuse.errors import InputError
from vkfuse.measure.ledger import ledger
from vkfuse.options import BaselineChoice
from vkfuse.pte import read_pte
from vkfuse.pte.model import Tensor
from vkfuse.quiet import quiet
from vkfuse.verify.session import run_file

NONE = BaselineChoice.NONE
ROWS, COLUMNS = 100, 56  # a lookup pads 56 columns to 64, a matmul 100 rows to 104
STATE_ARENA = 2  # memory that ExecuTorch plans for state of several methods


@cache
def _apart():
    """One tied table [100, 56]: the method `embed` looks it up, the method `head` multiplies by it."""
    torch.manual_seed(0)
    embed, head = Lookup(ROWS, COLUMNS), Linear(COLUMNS, ROWS)
    head.layer.weight = embed.table.weight
    with quiet():
        quantize(embed, nn.Embedding, group=8)
        quantize(head, nn.Linear, group=8)
        return {"embed": export(embed, indices(2, 7)), "head": export(head, torch.randn(3, COLUMNS))}


def test_methods_that_share_a_table_store_it_once(tmp_path):
    """A lookup in one method and a matmul in another read the same bytes, padded for both; one row says so."""
    path = tmp_path / "model.pte"
    report = vkfuse.optimize(_apart(), path, baseline=NONE).report
    (table,) = report.tables
    assert (table.rung, table.consumers, table.methods) == ("q4", ("gather", "matmul"), ("embed", "head"))
    packs = [entry for entry in ledger(read_pte(path)) if "uint8" in entry.label]
    assert [(entry.count, entry.bytes) for entry in packs] == [(1, 104 * 64 // 2)]
    stored = [entry for entry in ledger(read_pte(path)) if "q4gsw" in entry.label]
    assert table.bytes_after == sum(entry.bytes for entry in stored)
    assert [row.verify.ok for row in report.methods] == [True, True]


@pytest.mark.parametrize("kind", [BaselineChoice.FOLDED, BaselineChoice.STOCK])
def test_baseline_has_the_same_methods(kind, tmp_path):
    """What the file is compared with is one file with all methods too, however it is made."""
    report = vkfuse.optimize(_tied_pair(), tmp_path / "model.pte", baseline=kind, verify=False).report
    assert (report.baseline.kind, report.baseline.loadable) == (kind.value, True)
    assert report.baseline.delegation.vulkan["et_vk.linear_q4gsw.default"] == 1
    assert sum(op.count for op in report.baseline.delegation.cpu.values()) == (kind is BaselineChoice.FOLDED)
    assert report.diff.total.after == report.output.bytes


@cache
def _tied_pair():
    """A lookup and a layer, each quantized by itself, as methods of one file; stock lowers them too."""
    torch.manual_seed(0)
    with quiet():
        return {
            "embed": export(quantize(Lookup(128), nn.Embedding), indices(1, 7, rows=128)),
            "layer": export(quantize(Linear(64, 128), nn.Linear), torch.randn(3, 64)),
        }


def test_one_method_that_cannot_be_verified(tmp_path):
    """The file counts as verified only where every method is; each method's row says what was done."""
    with quiet():
        exported = export(quantize(Lookup(), nn.Embedding), indices(2, 7))
        silent = export(quantize(Linear(), nn.Linear), torch.randn(3, 128))
    silent.example_inputs = None
    report = vkfuse.optimize({"a": exported, "b": silent}, tmp_path / "model.pte", baseline=NONE).report
    assert [(row.name, row.verify.ran, row.verify.ok) for row in report.methods] == [
        ("a", True, True),
        ("b", False, None),
    ]
    assert (report.verify.ran, report.verify.ok) == (False, None)
    assert report.verify.skipped == ("the program stores no example inputs",)


@pytest.mark.parametrize(
    ("source", "words"),
    [({}, "no program"), ({"a b": "x.pt2"}, "'a b'"), ({"a": "-", "b": "-"}, "stdin")],
    ids=["none", "a bad name", "stdin twice"],
)
def test_mappings_that_are_none(source, words, tmp_path):
    """An empty mapping, a name that no application could call, stdin twice: an error and no file."""
    with pytest.raises(InputError, match=words):
        vkfuse.optimize(source, tmp_path / "model.pte")
    assert list(tmp_path.iterdir()) == []


class _Cached(LanguageModel):
    """A language model that writes to a cache [1, `length`, 64] where `writes` says so, and reads it."""

    def __init__(self, writes, length=32) -> None:
        super().__init__(128)
        self.writes = writes
        self.register_buffer("cache", torch.zeros(1, length, 64))

    def forward(self, tokens: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        hidden = self.table(tokens)
        return self.head(hidden + self.writes(self.cache, position, self.layer(hidden)))


def _reads(cache, _position, rows):
    return cache[:, :1] + rows


def _keeps(cache, position, rows):
    """The cache as it is read after the write, as attention does."""
    cache.index_copy_(1, position, rows)
    return cache.mean(1, keepdim=True)


def _counts(cache, _position, rows):
    """The cache is read before the write, which nothing else reads."""
    read = cache.mean(1, keepdim=True)
    cache.add_(rows[:, :1])
    return read


def _program(writes, tokens, **options):
    torch.manual_seed(0)
    with quiet(), torch.no_grad():
        module = quantize(quantize(_Cached(writes, **options), nn.Embedding), nn.Linear)
        return export(module, indices(1, tokens), torch.arange(tokens))


def _places(path):
    """(memory, offset) of every planned tensor of the cache's shape in the arena of shared state, by method."""
    return {
        method.name: {
            (value.allocation.memory_id, value.allocation.offset)
            for value in method.values
            if isinstance(value, Tensor) and value.allocation is not None and value.sizes == (1, 32, 64)
        }
        for method in read_pte(path).methods
    }


@pytest.mark.parametrize("writes", [_keeps, _counts])
def test_state_of_two_methods_is_one_buffer(writes, tmp_path):
    """Both methods plan the cache at one place of the memory that an application can share, and a note says how."""
    path = tmp_path / "model.pte"
    methods = {"prefill": _program(writes, 16), "decode": _program(writes, 1)}
    report = vkfuse.optimize(methods, path, baseline=NONE).report
    places = _places(path)
    assert (STATE_ARENA, 0) in places["prefill"] & places["decode"]
    (note,) = report.notes
    assert note.startswith("prefill and decode share state")
    assert note.endswith(": cache")
    assert "share_memory_arenas" in note


@pytest.mark.parametrize(
    ("decode", "words"),
    [
        (lambda: _program(_keeps, 1, length=8), "prefill and decode have state of their own each"),
        (lambda: _program(_reads, 1), "decode reads values as stored, not what prefill writes: cache"),
    ],
    ids=["other shape", "read only"],
)
def test_state_that_cannot_be_shared(decode, words, tmp_path):
    """Buffers of one name that differ in shape stay apart, and so does one that a method only reads: a note says so."""
    path = tmp_path / "model.pte"
    report = vkfuse.optimize({"prefill": _program(_keeps, 4), "decode": decode()}, path, baseline=NONE).report
    (note,) = [note for note in report.notes if " keeps " not in note]
    assert words in note
    assert not any(place[0] == STATE_ARENA for places in _places(path).values() for place in places)


@pytest.mark.parametrize("writes", [_keeps, _counts])
def test_state_stays_from_call_to_call(writes, tmp_path):
    """One method called three times: each call sees what the one before wrote, also where no one reads the write."""
    path, exported = tmp_path / "model.pte", _program(writes, 1)
    vkfuse.optimize(exported, path, baseline=NONE)
    session, eager = run_file(path), exported.module()
    for position in range(3):
        inputs = (indices(1, 1), torch.tensor([position]))
        (got,) = session(inputs)
        with torch.no_grad():
            torch.testing.assert_close(got, eager(*inputs), rtol=0, atol=1e-4)
