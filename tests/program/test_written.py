"""Tensors that a program writes to in place and that torch takes for constants, as a cache object's are."""

import json
import subprocess
import sys

import pytest
import torch
from programs import indices, quantize
from torch import nn

import vkfuse
from vkfuse.errors import LoweringError
from vkfuse.options import BaselineChoice
from vkfuse.quiet import quiet
from vkfuse.verify.session import run_file

ROWS = 6


class Cache:
    """Rows that were seen, as an object that is no module: what it holds are constants to a non-strict export."""

    def __init__(self):
        self.rows, self.more = torch.zeros(1, ROWS, 64), torch.zeros(1, ROWS, 64)
        self.count = torch.zeros(1, dtype=torch.long)


class Decoder(nn.Module):
    """A lookup whose rows are kept; the sum of those so far. One cache is registered too, as transformers has it."""

    def __init__(self, registered=True):
        super().__init__()
        self.table, self.cache = quantize(nn.Sequential(nn.Embedding(100, 64)), nn.Embedding), Cache()
        if registered:
            self.register_buffer("kept", self.cache.rows, persistent=False)

    def forward(self, token):
        at = self.cache.count.clone()
        self.cache.count.add_(1)
        row = self.table(token)
        self.cache.rows.index_copy_(1, at, row)
        self.cache.more.index_copy_(1, at, row * 2.0)
        return self.cache.rows.sum(1) * self.cache.more.sum(1)


class Parts(nn.Module):
    """Two parts of one tensor: what is written to one is read in the other."""

    def __init__(self):
        super().__init__()
        self.held = Cache()
        both = torch.zeros(8)
        self.held.rows, self.held.more = both[:4], both[2:6]

    def forward(self, x):
        self.held.rows.add_(x)
        return self.held.more * 2.0


def _exported(module, *inputs):
    with quiet(), torch.no_grad():
        return torch.export.export(module.eval(), inputs, strict=False)


@pytest.mark.slow
def test_a_cache_outside_of_modules_is_state(tmp_path):
    """Three calls of the written file see what the ones before wrote, as the program's own do; the archive as it is too."""
    torch.manual_seed(0)
    program, model, written = (
        _exported(Decoder(), indices(1, 1)),
        tmp_path / "model.pt2",
        tmp_path / "model.pte",
    )
    torch.export.save(program, model)
    tokens = [indices(1, 1) for _ in range(3)]
    eager = program.module()
    expected = [eager(token).clone() for token in tokens]
    command = [
        sys.executable,
        "-m",
        "vkfuse",
        "optimize",
        model,
        "-o",
        written,
        "--baseline",
        "none",
        "--format",
        "json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    report = json.loads(done.stdout)
    assert (report["delegation"]["subgraphs"], report["verify"]["ok"]) == (1, True)
    session = run_file(written)
    for token, wanted in zip(tokens, expected, strict=True):
        torch.testing.assert_close(session((token,))[0], wanted)
    assert any("kept" in note for note in report["notes"]), "the registered name is the state's"


def test_parts_of_a_written_tensor_are_refused(tmp_path):
    """The error names both tensors and what to do."""
    with pytest.raises(
        LoweringError, match=r"lifted_tensor_0 and \S*lifted_tensor_1 are parts of one tensor"
    ) as caught:
        vkfuse.optimize(
            _exported(Parts(), torch.ones(4)), tmp_path / "model.pte", baseline=BaselineChoice.NONE
        )
    assert "clone()" in caught.value.hint
    assert "unwrap" not in caught.value.hint


def test_state_without_a_name_in_two_methods_is_refused(tmp_path):
    """Torch numbers unregistered tensors: equal numbers are no sign that two methods mean one cache."""
    methods = {name: _exported(Decoder(registered=False), indices(1, 1)) for name in ("one", "two")}
    with pytest.raises(LoweringError, match=r"one and two have a lifted_tensor_0 each") as caught:
        vkfuse.optimize(methods, tmp_path / "model.pte", baseline=BaselineChoice.NONE)
    assert "register_buffer" in caught.value.hint
