"""State on the GPU: what the real runtime computes, call after call of one loaded method, verify computes too.

state_verdicts.json: outputs of four calls of each program's file, by a runtime of ExecuTorch 1.5.0 over Mesa's lavapipe.
"""

import copy
import json
from pathlib import Path

import pytest
import torch
from executorch.exir import to_edge_transform_and_lower
from state_programs import calls, programs
from torch import nn

import vkfuse
from vkfuse.errors import CheckFailedError
from vkfuse.lower import partition
from vkfuse.lower.owned import StateOutsideError
from vkfuse.options import BaselineChoice
from vkfuse.program.load import from_exported
from vkfuse.verify import comparison
from vkfuse.verify.session import Session, run_file
from vkfuse.verify.verify import VerifyOptions, verify_file

VERDICTS = json.loads(Path(__file__).with_name("state_verdicts.json").read_text("utf-8"))
BUFFERS = {"window": "rows", "sum": "total", "quantized": "cache.v_cache, cache.k_cache"}
CHOSEN = {"baseline": BaselineChoice.NONE, "runtime": "1.5.0"}


@pytest.mark.parametrize("storage", ["texture", "buffer"])
def test_state_on_the_gpu(storage, tmp_path):
    """Nothing of the state crosses; outputs are the real runtime's and the program's, also after a new beginning."""
    path = tmp_path / "model.pte"
    for name, exported in programs().items():
        report = vkfuse.optimize(exported, path, storage=storage, verify=False, **CHOSEN).report
        assert report.delegation.crossings == len(calls(name)[0]) + 1, name
        assert [note.split(" bytes) ")[1] for note in report.notes] == [
            f"on the GPU: {BUFFERS.get(name, 'cache')}"
        ], name
        session, eager = run_file(path), exported.module()
        wanted = VERDICTS[f"{storage} {name}"]
        for _ in range(2):
            got = [session(inputs)[0] for inputs in calls(name)]
            assert [[int(value) for value in each.reshape(-1)] for each in got] == wanted, name
            session.reset()
        with torch.no_grad():
            assert all(
                torch.equal(each, eager(*inputs)) for each, inputs in zip(got, calls(name), strict=True)
            )


def test_caches_outside_where_they_cannot_be_written_in_place(tmp_path, monkeypatch):
    """Where no delegate would have a cache, the program is lowered with it outside, and computes the same."""
    path, exported, tried = tmp_path / "model.pte", programs()["index_copy"], []

    def outside(program):
        if any("update_cache" in str(node.target) for node in program.graph.nodes):
            tried.append(program)
            raise StateOutsideError("")

    monkeypatch.setattr(partition, "require_delegated", outside)
    report = vkfuse.optimize(exported, path, **CHOSEN).report
    assert tried
    assert report.verify.ok
    assert "cache-writes-as-choices" in {repair.code for repair in report.repairs}


class _Exchange(nn.Module):
    """What one buffer holds, another has in the next call."""

    def __init__(self):
        super().__init__()
        self.register_buffer("one", torch.zeros(3))
        self.register_buffer("other", torch.ones(3))

    def forward(self, x):
        before = self.one.clone()
        self.one.copy_(self.other)
        self.other.copy_(before)
        return self.one + x


def test_two_buffers_that_exchange_values(tmp_path):
    """ExecuTorch writes one after the other, and ones are lost among zeros (measured): the third call shows it."""
    path, x = tmp_path / "model.pte", torch.zeros(3)
    exported = torch.export.export(_Exchange(), (x,))
    with pytest.raises(CheckFailedError, match="output 0 differs on third call in a row"):
        vkfuse.optimize(exported, path, **CHOSEN)
    vkfuse.optimize(exported, path, verify=False, **CHOSEN)
    session = run_file(path)
    assert [float(session((x,))[0][0]) for _ in range(4)] == [1, 0, 0, 0]


def test_a_cache_of_bytes_outside_begins_with_its_own(tmp_path):
    """Kept as the floats that it stands for, outside, with the first values of rows that nothing has written yet."""
    ops = torch.ops.quantized_decomposed

    class Known(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("cache", torch.arange(-8, 8, dtype=torch.int8)[:, None])
            self.register_buffer("scales", torch.full((16, 1), 0.5, dtype=torch.float64))
            self.register_buffer("points", torch.ones(16, 1, dtype=torch.int64))

        def forward(self, x):
            scales, points = ops.choose_qparams_per_token_asymmetric.default(x, torch.int8)
            rows = ops.quantize_per_token.default(x, scales, points, -128, 127, torch.int8)
            for state, part in ((self.cache, rows), (self.scales, scales), (self.points, points)):
                state.index_copy_(0, torch.arange(2), part)
            stored = (self.cache, self.scales, self.points, -128, 127, torch.int8, torch.float32)
            return ops.dequantize_per_token.default(*stored)

    exported = torch.export.export(Known(), (torch.tensor([[2.0], [-1.0]]),))
    report = vkfuse.optimize(exported, tmp_path / "model.pte", **CHOSEN).report
    assert report.verify.ok
    assert "quantized-caches-as-floats" in {repair.code for repair in report.repairs}


class _InTwoParts(nn.Module):
    """Two caches, of which one is read in front of and behind an operator of the CPU."""

    def __init__(self):
        super().__init__()
        self.register_buffer("one", torch.zeros(1, 8, 2, 16))
        self.register_buffer("parted", torch.zeros(1, 8, 2, 16))

    def forward(self, row, position):
        self.one.index_copy_(1, position, row)
        self.parted.index_copy_(1, position, row * 2)
        scores = (self.one * 3 + self.parted).sum(1)
        return (scores.square().add(1).atan().sin().unsqueeze(1) * self.parted).sum(1)


def test_a_cache_that_two_parts_have(tmp_path):
    """It alone stays outside, with the reason, in vkfuse's lowering and in anybody's; right on the real runtime too."""
    given = torch.randn(1, 1, 2, 16), torch.tensor([0])
    with torch.no_grad():
        exported = torch.export.export(_InTwoParts(), given)
    path, guest = tmp_path / "model.pte", tmp_path / "guest.pte"
    report = vkfuse.optimize(exported, path, **CHOSEN).report
    assert report.verify.ok
    kept, outside = report.notes
    assert kept.endswith("on the GPU: one")
    assert outside.endswith("one delegate does not have it alone: parted")
    edge = to_edge_transform_and_lower(exported, partitioner=[vkfuse.Partitioner(runtime="1.5.0")])
    guest.write_bytes(edge.to_executorch().buffer)
    rows = [(torch.randn(1, 1, 2, 16), torch.tensor([at])) for at in (0, 1, 7, 1)]
    for file in (path, guest):
        session, eager = run_file(file), copy.deepcopy(exported).module()
        for inputs in rows:
            torch.testing.assert_close(session(inputs)[0], eager(*inputs))


def test_a_count_stays_outside(tmp_path):
    """Whole numbers are added on the CPU, and a note says where they are and why."""

    class Counts(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("count", torch.zeros(4, dtype=torch.int64))

        def forward(self, x):
            self.count.add_(1)
            return torch.relu(x) @ x.T + self.count.sum()

    exported = torch.export.export(Counts(), (torch.ones(4, 4),))
    report = vkfuse.optimize(exported, tmp_path / "model.pte", **CHOSEN).report
    assert report.notes == (
        "forward keeps 1 buffer (32 bytes) outside of delegates, it holds no floats: count",
    )


def test_a_write_zeroes_the_rows_behind_it(tmp_path):
    """Rows that end within a work group: all behind them are zero (measured with this file, written at row 0)."""
    path = tmp_path / "model.pte"
    with pytest.MonkeyPatch.context() as patch:
        for place in ("rewrite.repairs.in_place", "runtime.operators.attention"):
            patch.setattr(f"vkfuse.{place}.rows_reached", lambda _columns, rows, _heads: rows)
        vkfuse.optimize(programs()["index_copy"], path, verify=False, **CHOSEN)
    (got,) = run_file(path)(calls("index_copy")[1])
    assert not got[:, :, 1:].any()


def test_calls_that_were_made_are_not_made_again(tmp_path, monkeypatch):
    """Four calls in a row go on from the example's, and each sample's run is what it is from a new beginning."""
    path, exported, made, resets = tmp_path / "model.pte", programs()["index_copy"], [], []
    vkfuse.optimize(exported, path, verify=False, **CHOSEN)
    call, reset = Session.borrowed, Session.reset
    monkeypatch.setattr(Session, "borrowed", lambda *given: made.append(given[1]) or call(*given))
    monkeypatch.setattr(Session, "reset", lambda session: resets.append(1) or reset(session))
    program = from_exported(exported).exported
    verdict = verify_file(path, program, VerifyOptions(seeds=2))
    assert verdict.ok
    labels = [run.label for run in verdict.runs]
    assert labels[:4] == ["example", "third call in a row", "fourth call in a row", "random 0"]
    counts = len(verdict.runs), len(made), len(resets)
    assert counts == (6, 6, 3)  # one of the random ones is the edge rows'
    monkeypatch.setattr(comparison.Comparison, "_stand", lambda *_: 0)
    monkeypatch.setattr(comparison, "_alike", lambda *_: False)
    assert verify_file(path, program, VerifyOptions(seeds=2)).runs == verdict.runs
    assert (len(made), len(resets)) == (6 + 11, 3 + 6)
