"""What vkfuse rebuilds from an archive's bytes is what torch.export.load gives."""

import io

import pytest
import torch
from programs import BOTH, LanguageModel, export, indices, quantize, quantize_dynamic
from torch import nn
from torch.export import Dim
from torch.utils._pytree import tree_flatten
from torchao.utils import unwrap_tensor_subclass

from vkfuse.program.archive import Archive
from vkfuse.program.check import open_checked
from vkfuse.program.load import _deserialized, from_exported, load


class Aliases(nn.Module):
    """Constants that share memory, that are views with strides and offsets, empty, of no dimension, integers and bools."""

    def __init__(self):
        super().__init__()
        self.one = nn.Parameter(torch.randn(6, 4))
        self.same = self.one
        self.register_buffer("turned", self.one.detach().t())
        self.register_buffer("part", torch.arange(40.0)[8:32:3])
        self.register_buffer("repeated", torch.randn(1, 4).expand(6, 4))
        self.register_buffer("none", torch.zeros(0, 3))
        self.register_buffer("number", torch.tensor(2.5, dtype=torch.float64))
        self.register_buffer("flags", torch.tensor([True, False, True, True]), persistent=False)
        self.register_buffer("small", torch.arange(-4, 4, dtype=torch.int8).half())

    def forward(self, x, extra=None):
        y = (
            x @ self.one
            + (self.same * self.repeated).sum(0)
            + self.turned.sum()
            + self.part.sum() * self.number
        )
        y = torch.where(self.flags, y, self.small.sum() + self.none.sum())
        return {"y": y.float(), "z": [y * 2.0, (x,)]} if extra is None else y + extra["a"]


def _conditional():
    class Branches(nn.Module):
        def forward(self, x):
            return torch.cond(x.sum() > 0, lambda v: v + 1.0, lambda v: v.sin(), (x,))

    return export(Branches(), torch.randn(3))


def _subclasses(unwrapped):
    made = quantize_dynamic(quantize(LanguageModel(), nn.Embedding))
    if unwrapped:
        unwrap_tensor_subclass(made)
    return export(made, indices(2, 5), dynamic=BOTH)


class Halves(nn.Module):
    def forward(self, x):
        return x[:, ::2] + x[:, 1::2]


CASES = {
    "an unbounded dimension": lambda: export(Halves(), torch.randn(2, 8), dynamic=({0: Dim.DYNAMIC},)),
    "an even dimension": lambda: export(
        Halves(), torch.randn(2, 8), dynamic=({1: 2 * Dim("half", min=2, max=8)},)
    ),
    "aliases and views": lambda: export(Aliases(), torch.randn(2, 6)),
    "nested inputs": lambda: export(Aliases(), torch.randn(2, 6), {"a": torch.randn(2, 4)}),
    "tensor subclasses, dynamic": lambda: _subclasses(unwrapped=False),
    "unwrapped subclasses, dynamic": lambda: _subclasses(unwrapped=True),
    "decomposed": lambda: _subclasses(unwrapped=True).run_decompositions(),
    "branches": _conditional,
    "half": lambda: export(LanguageModel().half(), indices(2, 5)),
    "bfloat16": lambda: export(LanguageModel().bfloat16(), indices(2, 5)),
}


def _same(ours, theirs):
    assert type(ours) is type(theirs)
    if not isinstance(ours, torch.Tensor):
        assert ours == theirs
        return
    assert (ours.dtype, ours.shape, ours.stride()) == (theirs.dtype, theirs.shape, theirs.stride())
    assert not isinstance(ours, nn.Parameter) or ours.requires_grad == theirs.requires_grad
    if hasattr(ours, "__tensor_flatten__"):
        for name in ours.__tensor_flatten__()[0]:
            _same(getattr(ours, name), getattr(theirs, name))
    else:
        assert torch.equal(ours, theirs)


def _shared(values):
    """Which stored tensors share storage."""
    places = {}
    for name, value in values.items():
        if isinstance(value, torch.Tensor) and value.numel() and not hasattr(value, "__tensor_flatten__"):
            places.setdefault(value.untyped_storage().data_ptr(), []).append(name)
    return sorted(places.values())


@pytest.mark.parametrize("make", CASES.values(), ids=CASES)
def test_rebuilt_as_torch_does(make, tmp_path):
    """Graph, signature, bounds, weights, constants, aliases and example inputs."""
    torch.manual_seed(0)
    path = tmp_path / "model.pt2"
    torch.export.save(make(), path)
    checked = open_checked(path)
    ours, theirs = _deserialized(checked, checked.model), torch.export.load(path)
    assert ours.graph_module.print_readable(print_output=False) == theirs.graph_module.print_readable(
        print_output=False
    )
    assert ours.graph_signature == theirs.graph_signature
    assert {str(k): v for k, v in ours.range_constraints.items()} == {
        str(k): v for k, v in theirs.range_constraints.items()
    }
    for mine, yours in ((ours.state_dict, theirs.state_dict), (ours.constants, theirs.constants)):
        assert list(mine) == list(yours)
        assert _shared(mine) == _shared(yours)
        for name in mine:
            _same(mine[name], yours[name])
    (mine, spec), (yours, other) = tree_flatten(ours.example_inputs), tree_flatten(theirs.example_inputs)
    assert spec == other
    for left, right in zip(mine, yours, strict=True):
        _same(left, right)


def test_a_tensor_that_is_written_to_leaves_the_file_alone(program):
    """Weights lie in the mapped file; what a program does to them stays in the process."""
    before = program.read_bytes()
    for value in load(program).exported.state_dict.values():
        value.data.fill_(1)
    assert program.read_bytes() == before


def test_every_flipped_byte_of_a_member_is_seen(program):
    """The members' checksums are compared, as torch does not."""
    data = program.read_bytes()
    archive = Archive(memoryview(data), "test")
    name = "data/weights/weight_0"
    start = data.index(bytes(archive.read(name)))
    for at in range(start, start + archive.size(name), 997):
        damaged = bytearray(data)
        damaged[at] ^= 16
        with pytest.raises(Exception, match="damaged"):
            Archive(memoryview(damaged), "test").read(name)


def test_stdin_and_a_pipe_are_read(program, tmp_path, monkeypatch):
    """A program without a file: from a stream."""
    import os  # noqa: PLC0415 - for this test
    import threading  # noqa: PLC0415 - for this test
    from pathlib import Path  # noqa: PLC0415 - for this test

    class Stdin:
        buffer = io.BytesIO(program.read_bytes())

    monkeypatch.setattr("sys.stdin", Stdin())
    assert open_checked(Path("-")).bytes == program.stat().st_size
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(program.read_bytes(),))
    writer.start()
    assert open_checked(pipe).bytes == program.stat().st_size
    writer.join()


def test_an_even_dimension_is_decomposed(tmp_path):
    """Torch writes bounds of `2*s0` too, and does not trace a program that it has read with them."""
    path = tmp_path / "model.pt2"
    torch.export.save(CASES["an even dimension"](), path)
    for program in (load(open_checked(path)), from_exported(torch.export.load(path))):
        (size,) = {str(n.meta["val"].shape[1]) for n in program.exported.graph.nodes if n.op == "placeholder"}
        assert size.startswith("2*s")


@pytest.mark.parametrize("hidden", [False, True])
def test_outputs_of_a_class_are_rebuilt_as_a_dictionary(hidden, tmp_path):
    """A model of transformers exported as it is: its outputs, some of them tuples, are tensors by name, in order."""
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2
    )
    config.use_cache, config.output_hidden_states = False, hidden
    model, tokens = transformers.LlamaForCausalLM(config).eval(), torch.zeros((1, 8), dtype=torch.long)
    with torch.no_grad():
        exported = torch.export.export(model, (), {"input_ids": tokens})
        expected = tree_flatten(model(input_ids=tokens))[0]
    torch.export.save(exported, tmp_path / "m.pt2")
    outputs = load(tmp_path / "m.pt2").exported.module()(input_ids=tokens)
    assert next(iter(outputs)) == "logits"
    assert (len(outputs) > 1) == hidden
    torch.testing.assert_close(tree_flatten(outputs)[0], expected)
