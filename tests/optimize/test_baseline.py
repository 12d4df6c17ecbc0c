"""The file before, made of the file just written: what a second lowering gives, without one."""

import contextlib
from collections import Counter
from dataclasses import replace

import pytest
import torch
from executorch.examples.models.llama.llama_transformer import construct_transformer
from executorch.examples.models.llama.model_args import ModelArgs
from executorch.examples.models.llama.source_transformation.custom_kv_cache import (
    replace_kv_cache_with_custom_kv_cache,
)
from executorch.examples.models.llama.source_transformation.sdpa import replace_sdpa_with_custom_op
from executorch.exir.memory_planning import greedy
from executorch.exir.tensor import TensorSpec
from hypothesis import given
from hypothesis import strategies as st
from outcome import worst_error
from programs import BOTH, LanguageModel, Lookup, export, indices, quantize
from torch import nn

import vkfuse
from vkfuse.measure.layouts import layouts
from vkfuse.measure.ledger import ledger
from vkfuse.measure.memory import memory
from vkfuse.patch.cut import UntoldError
from vkfuse.patch.places import Life, planned
from vkfuse.pipeline import baseline
from vkfuse.pte import read_pte
from vkfuse.quiet import quiet

FROM_THE_FILE = "making the folded baseline"
LOWERED = "lowering the folded baseline"


class Wide(nn.Module):
    """Tokens in a table of 56 columns, which a pack pads, and positions in floats, both in two rows."""

    def __init__(self):
        super().__init__()
        self.tokens = nn.Embedding(100, 56, padding_idx=0)
        self.positions = nn.Embedding(16, 56)
        self.layer = nn.Linear(56, 24)

    def forward(self, tokens, positions):
        """[2, 7] and [2, 7] -> [2, 7, 24]."""
        return self.layer(self.tokens(tokens) + self.positions(positions)).relu()


def _wide():
    model = Wide()
    quantize(nn.Sequential(model.tokens), nn.Embedding, group=8)
    return export(model, indices(2, 7), indices(2, 7, rows=16))


class Tied(LanguageModel):
    """Its rows are read in their own shape, and not only by a linear that flattens them."""

    def forward(self, tokens):
        """[n, m] -> [n, m, rows]."""
        rows = self.table(tokens)
        return self.head(torch.tanh(self.layer(rows)) + rows)


def _tied(dynamic=None, rows=128):
    model = Tied(rows)
    model.head.weight = model.table.weight
    quantize(quantize(model, nn.Embedding), nn.Linear)
    return export(model, indices(2, 7), dynamic=dynamic)


class Halves(nn.Module):
    """A method of a pair: rows of a table through a layer."""

    def __init__(self, table):
        super().__init__()
        self.table, self.layer = table, nn.Linear(64, 8)

    def forward(self, tokens):
        """[1, n] -> [1, n, 8]."""
        rows = self.table(tokens)
        return self.layer(rows * rows.sigmoid())


class Narrow(nn.Module):
    """Rows that only two linears read, which flatten them."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(100, 64)
        self.layers = nn.ModuleList([nn.Linear(64, 32), nn.Linear(64, 8)])

    def forward(self, tokens):
        """[n, m] -> [n, m, 32], [n, m, 8]."""
        rows = self.table(tokens)
        return [layer(rows) for layer in self.layers]


class Head(nn.Module):
    """A lookup and a head over one table; `between` is what becomes of the rows."""

    def __init__(self, rows, between=lambda rows: rows):
        super().__init__()
        self.table, self.head = nn.Embedding(rows, 32), nn.Linear(32, rows, bias=False)
        self.head.weight, self.between = self.table.weight, between

    def forward(self, tokens):
        """[n, m] -> [n, m, rows]."""
        return self.head(self.between(self.table(tokens)))


def _head(rows, between=lambda rows: rows, dynamic=None):
    """Groups of 32, tied after they were quantized; logits of more than 65536 rows fit in no texture."""
    model = quantize(Head(rows, between), nn.Embedding)
    model.head.weight = model.table.weight
    return export(model, indices(2, 7), dynamic=dynamic)


def _added(rows):
    return torch.nn.functional.layer_norm(rows, (32,)).tanh() + rows * 2


def _pair():
    table = quantize(Lookup(), nn.Embedding)
    return {"short": export(Halves(table), indices(1, 3)), "long": export(Halves(table), indices(1, 9))}


LLAMA = {
    "dim": 64,
    "n_layers": 1,
    "n_heads": 4,
    "n_kv_heads": 2,
    "vocab_size": 256,
    "hidden_dim": 64,
    "max_seq_len": 32,
    "max_context_len": 32,
    "use_kv_cache": True,
    "generate_full_logits": False,
}


def _llama(change=lambda model: model):
    """ExecuTorch's example, one token with a cache."""
    model = construct_transformer(ModelArgs(**LLAMA)).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data.normal_(0, 0.1)
    quantize(quantize(model, nn.Embedding), nn.Linear)
    with torch.no_grad():
        return torch.export.export(change(model), (indices(1, 1), {"input_pos": torch.tensor([0])}))


def _custom():
    """By ExecuTorch's own operators for caches and attention."""
    return _llama(lambda model: replace_sdpa_with_custom_op(replace_kv_cache_with_custom_kv_cache(model)))


class Kept(LanguageModel):
    """A cache at given positions, the last rows, and a count of the calls, which is kept outside of delegates."""

    def __init__(self):
        super().__init__(128)
        self.register_buffer("cache", torch.zeros(1, 32, 64))
        self.register_buffer("last", torch.ones(1, 4, 64))
        self.register_buffer("calls", torch.zeros(1, dtype=torch.int64))

    def forward(self, tokens, position):
        """[1, n], [n] -> [1, n, rows]."""
        rows = self.table(tokens)
        self.cache.index_copy_(1, position, self.layer(rows))
        self.last.copy_(torch.cat([self.last[:, 1:], rows[:, -1:]], 1))
        self.calls.add_(1)
        known = self.cache.mean(1, keepdim=True) + self.last.sum(1, keepdim=True)
        return self.head(torch.tanh(rows + known)) + self.calls.sum()


def _kept(tokens=1):
    with torch.no_grad():
        model = quantize(quantize(Kept(), nn.Embedding), nn.Linear)
        return export(model, indices(1, tokens), torch.arange(tokens))


def _sharing():
    """Two methods of one state."""
    return {"prefill": _kept(16), "decode": _kept()}


def _looked_up():
    return export(quantize(Lookup(), nn.Embedding), indices(2, 7))


class Reshaped(nn.Module):
    """A lookup as transformers have it."""

    def __init__(self):
        super().__init__()
        self.table, self.layer = Lookup(), nn.Linear(64, 8)

    def forward(self, tokens):
        """[n, m] -> [n, m, 8]."""
        rows = self.table(tokens.view(-1, tokens.shape[-1]))
        return self.layer(rows * rows.sigmoid())


def _reshaped():
    return export(quantize(Reshaped(), nn.Embedding), indices(2, 7), dynamic=BOTH)


def _made(build, folder, monkeypatch=None):
    """A program, its folded baseline, the report and the stages of the run; lowered where there is a `monkeypatch`."""
    if monkeypatch is not None:
        monkeypatch.setattr(baseline, "before_lookups", _untold)
    torch.manual_seed(0)
    with quiet():
        program = build()
    before, stages = folder / "before.pte", []
    report = vkfuse.optimize(
        program, folder / "model.pte", keep_baseline=before, verify=False, progress=stages.append
    ).report
    return program, before, report, stages


@contextlib.contextmanager
def _untold(*_):
    raise UntoldError("it was asked for")
    yield


def _labels(path):
    sizes = Counter()
    for entry in ledger(read_pte(path)):
        sizes[entry.kind, entry.label] += entry.bytes
    return sizes


@pytest.mark.parametrize(
    "build",
    [
        _wide,
        _tied,
        lambda: _tied(BOTH, rows=16003),
        lambda: export(quantize(Narrow(), nn.Embedding), indices(2, 7), dynamic=BOTH),
        lambda: _head(128),
        lambda: _head(66000),
        lambda: _head(66000, _added, BOTH),
        _pair,
        _llama,
        _custom,
        _kept,
        _sharing,
    ],
    ids=[
        "wide",
        "tied",
        "shared scales",
        "flattened twice",
        "flattened",
        "in buffers",
        "buffers through a norm",
        "pair",
        "cache",
        "custom cache",
        "states",
        "state of two",
    ],
)
def test_is_what_a_second_lowering_writes(build, tmp_path, tmp_path_factory, monkeypatch):
    """The same bytes by label; the same operators, where and why; the same rows of tables; the program's results."""
    program, quick, report, stages = _made(build, tmp_path)
    assert FROM_THE_FILE in stages
    assert LOWERED not in stages
    assert report.baseline.note == "made of the written file"
    _, slow, lowered, stages = _made(build, tmp_path_factory.mktemp("lowered"), monkeypatch)
    assert LOWERED in stages
    assert _labels(quick) == _labels(slow)
    assert report.baseline == replace(lowered.baseline, note=report.baseline.note)
    assert report.baseline.loadable
    assert report.tables == lowered.tables
    assert layouts(read_pte(quick)) == layouts(read_pte(slow))
    assert memory(read_pte(quick)) == memory(read_pte(slow))
    for name, exported in program.items() if isinstance(program, dict) else [("forward", program)]:
        if name == "forward":
            assert worst_error(exported, quick) <= 1e-5


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (
            lambda: export(quantize(Lookup(), nn.Embedding), indices(2, 7)),
            "rows of a lookup leave the delegate as they are",
        ),
        (_reshaped, "indices of a dynamic size are reshaped for a lookup"),
    ],
    ids=["lookup", "reshaped"],
)
def test_what_the_file_cannot_tell_is_lowered(build, reason, tmp_path):
    """A delegate of nothing but a lookup would hand its input out; what a program did to indices is no longer there."""
    _, before, report, stages = _made(build, tmp_path)
    assert stages[-3:] == [FROM_THE_FILE, LOWERED, "reporting"]
    assert report.baseline.bytes == before.stat().st_size
    assert report.baseline.note == f"lowered anew, since {reason}"


def _far(rows):
    for _ in range(40):
        rows = (rows * 0.9).tanh()
    return rows


def test_what_fits_in_no_texture_may_be_far(tmp_path, tmp_path_factory, monkeypatch):
    """Logits further from the rows than lowering looks, as a language model's: nothing is lowered, some copies are more."""

    def build():
        return _head(70_000, _far)

    program, quick, report, stages = _made(build, tmp_path)
    assert LOWERED not in stages
    assert report.baseline.loadable
    _, slow, _, _ = _made(build, tmp_path_factory.mktemp("lowered"), monkeypatch)
    assert abs(quick.stat().st_size - slow.stat().st_size) < 4096
    assert worst_error(program, quick) <= 1e-5


@given(
    lives=st.lists(
        st.tuples(st.integers(0, 40), st.integers(0, 12), st.integers(0, 12)).map(
            lambda t: Life(t[0] * 8, min(t[1:]), max(t[1:]))
        ),
        max_size=12,
    ),
    beside=st.booleans(),
)
def test_memory_is_shared_as_executorch_shares_it(lives, beside):
    """The same places as `greedy` of the installed ExecuTorch gives."""
    specs = []
    for life in lives:
        spec = TensorSpec(torch.uint8, torch.Size([life.size]))
        spec.lifetime = [life.first, life.last]
        specs.append(spec)
    theirs = greedy(16, specs, torch.nn.Module(), None, allow_overlapping_allocations=beside)
    ours, total = planned(lives, beside=beside)
    assert ours == [(theirs.spec_dict[s].mem_obj_id, theirs.spec_dict[s].mem_offset) for s in specs]
    assert total == theirs.bufsizes[-1]


class _Shifted(nn.Module):
    """A constant that no state dict has, and that is a part of another tensor."""

    def __init__(self):
        super().__init__()
        self.register_buffer("shift", torch.rand(4, 9)[:, 1:], persistent=False)
        self.layer = nn.Linear(8, 8)

    def forward(self, x):
        """[4, 8] -> [4, 8]."""
        return self.layer(x + self.shift)


def test_the_program_stays_as_it_is(tmp_path):
    """ExecuTorch takes constants out of what it lowers: not out of the caller's program, which runs as before."""
    exported = export(_Shifted(), torch.rand(4, 8))
    (inputs, _), constants = exported.example_inputs, dict(exported.constants)
    before = exported.module()(*inputs)
    vkfuse.optimize(exported, tmp_path / "m.pte", baseline="stock")
    assert exported.constants.keys() == constants.keys() == {"shift"}
    assert exported.constants["shift"] is constants["shift"]
    torch.testing.assert_close(exported.module()(*inputs), before, rtol=0, atol=0)
