"""Calls in step: the same verdict, figures and notes as by calls one after the other."""

from dataclasses import replace

import pytest
import torch
from programs import LanguageModel, dynamic_linear, export, indices, linear, quantize, quantize_dynamic
from state_programs import programs
from torch import nn

import vkfuse
from vkfuse.program.load import from_exported
from vkfuse.verify import comparison
from vkfuse.verify.verify import VerifyOptions, verify_file


class Decoder(nn.Module):
    """A token with a cache, a buffer that says where its row goes, as caches of transformers have it, and 8da4w linears."""

    def __init__(self):
        super().__init__()
        self.table, self.head = nn.Embedding(96, 64), nn.Linear(64, 96, bias=False)
        self.rows, self.out = nn.Linear(64, 64, bias=False), nn.Linear(64, 64)
        self.register_buffer("cache", torch.zeros(1, 1, 8, 64))
        self.register_buffer("count", torch.zeros(1, dtype=torch.int64))

    def forward(self, token, position):
        """Token [1, 1], its position [1] -> logits [1, 1, 96]."""
        x = self.table(token)
        self.count.copy_(position)
        at = torch.arange(1) + self.count
        self.cache.index_copy_(2, at, self.rows(x)[:, None])
        self.count.add_(1)
        seen = torch.softmax(x[:, None] @ self.cache.transpose(2, 3), -1) @ self.cache
        return self.head(self.out(seen[:, 0]) + x)


def _decoder():
    model = Decoder()
    quantize_dynamic(quantize(model, nn.Embedding))
    return export(model, torch.tensor([[3]]), torch.tensor([2]))


def _tied():
    model = LanguageModel(128)
    model.head.weight = model.table.weight
    return export(quantize(quantize(model, nn.Embedding), nn.Linear), indices(1, 5))


OTHERS = {
    "decoder": _decoder,
    "tied": _tied,
    "another decoder": _decoder,
    "8da4w, a row": dynamic_linear(1, 64),
    "8da4w, another row": dynamic_linear(1, 64),
    "8da4w, rows": dynamic_linear(5, 64),
    "4-bit": linear(5, 64),
}

IN_STEP = {"index_copy", "slice", "scatter", "index_put", "tied", "4-bit", "decoder", "another decoder"} | {
    "8da4w, a row",
    "8da4w, another row",
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Programs and their files, by name."""
    made, folder = {}, tmp_path_factory.mktemp("in_step")
    torch.manual_seed(0)
    for name, exported in {**programs(), **{name: of() for name, of in OTHERS.items()}}.items():
        path = folder / f"{len(made)}.pte"
        vkfuse.optimize(exported, path, baseline="none", verify=False)
        made[name] = from_exported(exported).exported, path
    return made


def _verdict(exported, path, monkeypatch, *, in_step):
    """The verdict, and how many samples the file was run for by themselves."""
    alone = []
    run = comparison.Comparison._file
    with monkeypatch.context() as patch:
        patch.setattr(comparison, "_MANY_WEIGHTS", 0 if in_step else 1 << 60)
        patch.setattr(
            comparison.Comparison, "_file", lambda of, sample: alone.append(sample) or run(of, sample)
        )
        verdict = verify_file(path, exported, VerifyOptions(seeds=2))
    return repr(replace(verdict, seconds=0.0)), len(alone), verdict.status


def test_the_same_verdict(files, monkeypatch):
    """Of files that are right, none of whose samples is run by itself in step.

    But of dynamic sizes, of state outside of delegates, and where torch's arithmetic is enough and the runtime's another.
    """
    alone = {}
    for name, (exported, path) in files.items():
        before, count, status = _verdict(exported, path, monkeypatch, in_step=False)
        after, alone[name], _ = _verdict(exported, path, monkeypatch, in_step=True)
        assert before == after, name
        assert (status, count > 0) == ("same", True), name
    assert {name for name, count in alone.items() if not count} == IN_STEP


def test_the_same_of_wrong_files(files, monkeypatch):
    """Of files of other weights: each sample is run by itself, and what departs is found."""
    for name, other in (("decoder", "another decoder"), ("8da4w, a row", "8da4w, another row")):
        pair = files[name][0], files[other][1]
        before, count, status = _verdict(*pair, monkeypatch, in_step=False)
        after, alone, _ = _verdict(*pair, monkeypatch, in_step=True)
        assert (before, count, status) == (after, alone, "differs"), name
        assert "departure=None" not in before, name
