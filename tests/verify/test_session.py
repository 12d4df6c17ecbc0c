"""The executor on whole programs: control flow, state, memory that is shared, other backends."""

import io
import logging
from typing import Any

import pytest
import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import ExecutorchBackendConfig, to_edge_transform_and_lower
from torch import nn
from torch.export import Dim, export

from vkfuse.errors import InputError
from vkfuse.pte import parse_pte, read_ptd
from vkfuse.verify import foreign
from vkfuse.verify.errors import CannotVerifyError
from vkfuse.verify.session import Session, run_file
from vkfuse.verify.verify import VerifyOptions, verify_file


def _lowered(methods: Any, partitioners: Any = None) -> bytes:
    logging.disable(logging.WARNING)
    edge = to_edge_transform_and_lower(methods, partitioner=partitioners)
    stream = io.BytesIO()
    edge.to_executorch().write_to_file(stream)
    logging.disable(logging.NOTSET)
    return stream.getvalue()


def _session(module: nn.Module, inputs: tuple[Any, ...], dynamic: Any = None) -> Session:
    return run_file(parse_pte(_lowered(export(module.eval(), inputs, dynamic_shapes=dynamic))))


class _Branch(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cond(x.sum() > 0, lambda y: y.sin() * 2, lambda y: y.cos() - 1, (x,))


def test_both_branches_are_taken():
    """A jump on a computed condition takes the branch that the program takes, either way."""
    x = torch.rand(3, 5)
    session = _session(_Branch(), (x,))
    for sign in (1, -1):
        (out,) = session((x * sign,))
        torch.testing.assert_close(out, _Branch()(x * sign))


class _Counter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.add_(x)
        return self.seen * 1


def test_state_lasts_until_reset():
    """A mutable buffer keeps its value between calls, and `reset` puts back what the file says."""
    session = _session(_Counter(), (torch.ones(4),))
    assert [float(session((torch.ones(4),))[0][0]) for _ in range(3)] == [1, 2, 3]
    session.reset()
    assert float(session((torch.ones(4),))[0][0]) == 1


class _Attention(nn.Module):
    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, ...]:
        scores = torch.softmax(q @ k.transpose(-1, -2), -1)
        first, second = (scores @ v).split([4, 12], dim=-1)
        return first + 1, second.reshape(2, -1), scores.topk(2).values


def test_views_without_instructions_are_read_from_shared_memory():
    """Views that the emitter left out, lists of outputs and kernels with several outputs are what torch computes."""
    inputs = tuple(torch.rand(1, 2, 5, 16) for _ in range(3))
    outputs = _session(_Attention(), inputs)(inputs)
    for got, expected in zip(outputs, _Attention()(*inputs), strict=True):
        torch.testing.assert_close(got, expected)


class _Grown(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, x.new_ones(x.shape[0], 2)], dim=1).reshape(-1, 2) * x.shape[0]


def test_sizes_follow_the_input():
    """Sizes computed from the input's are followed at any length up to the file's bound, and not past it."""
    length = Dim("length", min=1, max=9)
    session = _session(_Grown(), (torch.rand(4, 6),), ({0: length},))
    for rows in (1, 7, 9):
        x = torch.rand(rows, 6)
        torch.testing.assert_close(session((x,))[0], _Grown()(x))
    with pytest.raises(InputError, match="does not fit"):
        session((torch.rand(10, 6),))


def test_inputs_are_checked():
    """A wrong number, type or method of the inputs is said as such."""
    data = _lowered(export(nn.ReLU(), (torch.rand(2, 3),)))
    session = run_file(parse_pte(data))
    with pytest.raises(InputError, match="2 inputs"):
        session((torch.rand(2, 3), torch.rand(2, 3)))
    with pytest.raises(InputError, match="float32"):
        session((torch.rand(2, 3).double(),))
    with pytest.raises(InputError, match="no method 'other'"):
        run_file(parse_pte(data), "other")


def test_each_method_is_run_by_name():
    """A file with two methods runs the one that is asked for."""
    x = torch.rand(2, 3) - 0.5
    data = _lowered({"forward": export(nn.ReLU(), (x,)), "other": export(nn.Tanh(), (x,))})
    torch.testing.assert_close(run_file(parse_pte(data), "other")((x,))[0], x.tanh())
    torch.testing.assert_close(run_file(parse_pte(data))((x,))[0], x.relu())


def test_every_operator_is_observed_with_what_it_read_and_wrote():
    """Who watches sees each operator once, in order, with values and their places."""
    x = torch.rand(2, 3)
    data = _lowered(export(nn.Sequential(nn.ReLU(), nn.Tanh()), (x,)))
    steps = []
    run_file(parse_pte(data))((x,), steps.append)
    assert [step.name for step in steps] == ["aten::relu.out", "aten::tanh.out"]
    torch.testing.assert_close(steps[1].outputs[0], x.tanh())
    assert set(steps[0].writes) & set(steps[1].reads)


def test_delegate_of_another_backend_runs_in_its_own_runtime():
    """An XNNPACK delegate is run by the installed runtime, beside kernels that torch runs."""
    module = nn.Sequential(nn.Linear(8, 4), nn.ReLU())
    x = torch.rand(3, 8)
    exported = export(module.eval(), (x,))
    pte = parse_pte(_lowered(exported, [XnnpackPartitioner()]))
    assert [delegate.id for delegate in pte.methods[0].delegates] == ["XnnpackBackend"]
    verdict = verify_file(pte, exported, VerifyOptions(seeds=1))
    assert verdict.ok, verdict.message


def test_a_delegate_that_nothing_here_runs_is_no_pass(monkeypatch):
    """A delegate of a backend that is not installed ends in `cannot verify`, named."""
    monkeypatch.setattr(foreign, "available", lambda _: False)
    exported = export(nn.Linear(8, 4).eval(), (torch.rand(3, 8),))
    pte = parse_pte(_lowered(exported, [XnnpackPartitioner()]))
    verdict = verify_file(pte, exported)
    assert (verdict.status, verdict.ok) == ("cannot-verify", False)
    assert "XnnpackBackend" in verdict.message
    with pytest.raises(CannotVerifyError, match="XnnpackBackend"):
        run_file(pte)((torch.rand(3, 8),))


def test_external_data_is_read_from_its_own_file(tmp_path):
    """Constants in a .ptd are taken from there; without it the error says what is missing."""
    module = nn.Linear(8, 4).eval()
    x = torch.rand(3, 8)
    edge = to_edge_transform_and_lower(export(module, (x,)))
    program = edge.to_executorch(ExecutorchBackendConfig(external_constants=True))
    program.write_to_file(stream := io.BytesIO())
    program.write_tensor_data_to_file(str(tmp_path))
    (ptd,) = tmp_path.glob("*.ptd")
    session = run_file(parse_pte(stream.getvalue(), external=read_ptd(ptd)))
    torch.testing.assert_close(session((x,))[0], module(x))
    with pytest.raises(InputError, match="ptd"):
        run_file(parse_pte(stream.getvalue()))
