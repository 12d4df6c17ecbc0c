"""Graphs without what people debug by: the same file, and torch as it was afterwards."""

import contextlib
import inspect
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from programs import dynamic_linear, export, lookup
from torch import fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.traceback import NodeSource

from vkfuse.lower import upstream
from vkfuse.lower.retraced import _alike
from vkfuse.pipeline import optimize, stages
from vkfuse.program.lean import lean_graphs, one_thread

LENGTH = torch.export.Dim("length", min=2, max=64)


def _relu(x):
    return torch.relu(x)


def _convolutions():
    model = nn.Sequential(nn.Conv1d(4, 8, 3), nn.ReLU(), nn.Conv1d(8, 4, 1), nn.Softmax(-1)).eval()
    return export(model, torch.randn(1, 4, 16))


class _SameLength(nn.Module):
    """Two inputs of one dynamic length: torch checks it by the names of the arguments, read off `forward`."""

    def forward(self, tokens, x):
        return torch.relu(tokens + x)


def _two_inputs():
    return export(_SameLength(), torch.randn(3, 4), torch.randn(3, 4), dynamic=({0: LENGTH}, {0: LENGTH}))


@pytest.mark.parametrize(
    "build",
    [_two_inputs, lookup(2, 7), dynamic_linear(2, 5, 128, dynamic=({1: LENGTH},)), _convolutions],
    ids=["two-inputs", "lookup", "dynamic-linear", "convolutions"],
)
def test_same_bytes(build, tmp_path, monkeypatch):
    """The file is the same byte for byte with torch's own graphs, and without shortcuts through ExecuTorch."""
    torch.manual_seed(0)
    program = build()
    lean = optimize(program, tmp_path / "lean.pte", baseline="none", verify=False).output
    monkeypatch.setattr(stages, "lean_graphs", contextlib.nullcontext)
    monkeypatch.setattr(upstream, "KNOWN", frozenset())
    own = optimize(program, tmp_path / "own.pte", baseline="none", verify=False).output
    assert lean.read_bytes() == own.read_bytes()


def test_code_when_it_is_asked_for():
    """A module that changed computes and prints what its graph says; outside nothing is changed."""
    before = (fx.GraphModule.recompile, NodeSource.__init__)
    with lean_graphs():
        module = fx.symbolic_trace(_relu)
        node = next(n for n in module.graph.nodes if n.op == "call_function")
        node.target = torch.neg
        module.recompile()
        assert "neg" in str(module)
        assert "neg" in module.code
        assert module(torch.ones(2)).tolist() == [-1, -1]
        node.target = torch.exp
        module.recompile()
        assert list(inspect.signature(module.forward).parameters) == ["x"]
        assert module(torch.zeros(1)).item() == 1
        first = NodeSource(node, "pass")
        assert (first.from_node, first.name, first.graph_id) == ([], node.name, id(node.graph))
        for _ in range(3):  # a copy of a copy knows what it was first, and nothing between
            node.meta["from_node"] = [NodeSource(node, "pass")]
        (last,) = node.meta["from_node"]
        assert [(s.name, s.from_node) for s in last.from_node] == [(node.name, [])]
        left = fx.symbolic_trace(_relu)
    assert (fx.GraphModule.recompile, NodeSource.__init__) == before
    assert not hasattr(fx.GraphModule, "_code")
    assert left(torch.ones(1)).item() == 1


def test_code_afterwards():
    """A module that changed within, as a branch of a program in memory, has its code when somebody asks later."""
    module = fx.symbolic_trace(_relu)
    with lean_graphs():
        next(n for n in module.graph.nodes if n.op == "call_function").target = torch.neg
        module.recompile()
    assert "neg" in module.code
    assert module(torch.ones(2)).tolist() == [-1, -1]


def test_threads_afterwards():
    """Torch has the threads that it had."""
    before = torch.get_num_threads()
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before


def test_threads_of_others_afterwards():
    """A thread that began to compute while another was within has all threads after a turn of its own; new ones too."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    with ThreadPoolExecutor(1) as worker, ThreadPoolExecutor(1) as new:
        with one_thread():
            worker.submit(torch.get_num_threads).result()
        assert worker.submit(one_thread()(torch.get_num_threads)).result() == 1
        threads = [of.submit(torch.get_num_threads).result() for of in (worker, new)]
    torch.set_num_threads(before)
    assert threads == [3, 3]


def test_operands_told_apart():
    """Tensors of equal sizes, strides and types are one to an operator; of another size, type or known numbers not."""
    with FakeTensorMode() as mode:
        x, same, longer = (torch.empty(2, size) for size in (3, 3, 4))
        halves, turned = torch.empty(2, 3, dtype=torch.half), torch.empty(3, 2).t()
        known = mode.from_tensor(torch.ones(2, 3))
    known.constant = torch.ones(2, 3)
    assert _alike((x, [1, None]), (same, [1, None]))
    assert not any(_alike(x, other) for other in (longer, halves, turned, known, 1, None))
    assert not any(
        _alike(one, other) for one, other in [(1, True), (1, 1.0), ([x], [x, x]), ({"a": 1}, {"b": 1})]
    )
