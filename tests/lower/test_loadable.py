"""Lowering until the file loads, with real faults and with errors made to happen in ExecuTorch's own lowering."""

import pytest
import torch
from executorch.backends.vulkan.vulkan_preprocess import VulkanBackend
from programs import quantize_dynamic
from torch import nn
from torchao.utils import unwrap_tensor_subclass

from vkfuse.errors import LoweringError
from vkfuse.lower import loadable, operands
from vkfuse.lower.loadable import lower_loadable
from vkfuse.options import Options
from vkfuse.pipeline import optimize
from vkfuse.program.load import from_exported
from vkfuse.pte import read_pte
from vkfuse.quiet import quiet
from vkfuse.report.build import measure


class _Layers(nn.Module):
    """Four linears with activations between; x [3, 8]."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(4))

    def forward(self, x):
        for layer in self.layers:
            x = torch.sigmoid(layer(x))
        picked = torch.tensor([2, 0])
        return torch.tanh(x), x[picked], x[:, picked]


@pytest.fixture(scope="module")
def program():
    """The layers, exported."""
    return from_exported(torch.export.export(_Layers().eval(), (torch.randn(3, 8),))).exported


@pytest.fixture
def lowered(program, tmp_path):
    """A function: the delegation of the file that comes out, and the stages that were reported."""

    def run(runtime="1.5.0"):
        stages = []

        def write(made):
            path = tmp_path / "model.pte"
            with path.open("wb") as stream:
                made.write(stream)
            return read_pte(path)

        with quiet():
            made, pte = lower_loadable({"forward": program}, Options(runtime=runtime), write, stages.append)
        return measure(pte, reasons=made.reasons).delegation, stages

    return run


def test_a_fault_of_one_call_keeps_off_that_call(lowered, monkeypatch):
    """What only the file tells: indexing along columns is not built, along rows it is; the first leaves the delegate."""
    real = operands.judge
    monkeypatch.setattr(
        operands, "judge", lambda ops, runtime: () if "index" in ops.operator else real(ops, runtime)
    )
    delegation, stages = lowered()
    assert delegation.cpu["aten::index.Tensor_out"].count == 1
    assert delegation.cpu["aten::index.Tensor_out"].reason == "index-later-axis"
    assert delegation.vulkan["aten.index.Tensor"] == 1
    assert stages == [
        "lowering",
        "reading back",
        "lowering again with aten_index_tensor_1 on the CPU",
        "reading back",
    ]


def test_indexing_by_version(lowered):
    """1.5.1 indexes along any axis, 1.5.0 along the first only, which is known before lowering."""
    older, newer = lowered("1.5.0")[0], lowered("1.5.1")[0]
    assert older.cpu["aten::index.Tensor_out"].reason == "index-later-axis"
    assert (older.vulkan["aten.index.Tensor"], newer.vulkan["aten.index.Tensor"]) == (1, 2)


def _fail_on(monkeypatch, is_bad):
    """Let ExecuTorch's Vulkan backend raise where a delegate holds bad nodes."""
    real = VulkanBackend.preprocess.__func__

    def preprocess(cls, program, specs):
        bad = [n.name for n in program.graph_module.graph.nodes if n.op == "call_function" and is_bad(n)]
        if bad:
            raise AssertionError(f"cannot lower {bad[0]}")
        return real(cls, program, specs)

    monkeypatch.setattr(VulkanBackend, "preprocess", classmethod(preprocess))


def test_an_error_of_executorch_keeps_off_what_raises(lowered, monkeypatch):
    """Of four sigmoids that look the same, the two that ExecuTorch cannot lower are found; the others are delegated."""
    _fail_on(monkeypatch, lambda node: node.name in {"aten_sigmoid_default_1", "aten_sigmoid_default_3"})
    delegation, stages = lowered()
    assert delegation.cpu["aten::sigmoid.out"].count == 2
    assert delegation.cpu["aten::sigmoid.out"].reason == "executorch-raises"
    assert "cannot lower aten_sigmoid_default_1" in delegation.cpu["aten::sigmoid.out"].detail
    assert delegation.vulkan["aten.sigmoid.default"] == 2
    assert sum("attempt" in stage for stage in stages) < 16


def test_too_long_a_search_keeps_off_the_operator(lowered, monkeypatch):
    """Where telling nodes apart would take too many attempts, all of the operator stay on the CPU."""
    _fail_on(monkeypatch, lambda node: node.name == "aten_sigmoid_default_1")
    monkeypatch.setattr(loadable, "MAX_ATTEMPTS", 6)
    delegation, stages = lowered()
    assert delegation.cpu["aten::sigmoid.out"].count == 4
    assert sum("attempt" in stage for stage in stages) <= 6


def test_a_search_without_end_tells_the_error(lowered, monkeypatch):
    """Where even the operators cannot be told apart in time, ExecuTorch's own error is what the user gets."""
    _fail_on(monkeypatch, lambda node: node.name == "aten_sigmoid_default_1")
    monkeypatch.setattr(loadable, "MAX_ATTEMPTS", 2)
    with pytest.raises(LoweringError, match="cannot lower aten_sigmoid_default_1"):
        lowered()


def test_an_error_about_nothing_delegated_is_told(lowered, monkeypatch):
    """An error that comes whatever is delegated is ExecuTorch's own, with its text."""
    monkeypatch.setattr(
        "executorch.exir.program._program.EdgeProgramManager.to_executorch",
        lambda *_args, **_named: (_ for _ in ()).throw(RuntimeError("no memory plan")),
    )
    with pytest.raises(LoweringError, match="RuntimeError: no memory plan"):
        lowered()


class _Rows(nn.Module):
    """A linear of rows whose number only the run knows: read off a tensor, or counted."""

    def __init__(self, *, counted):
        super().__init__()
        self.linear, self._counted = nn.Linear(8, 8), counted

    def forward(self, x, many):
        if self._counted:
            return self.linear(x)[(many > 5).nonzero()[:, 0]]
        n = many[0].item()
        torch._check(n >= 2)
        torch._check(n <= 8)
        return self.linear(torch.zeros(n, 8)) + self.linear(torch.arange(n)[:, None].float().expand(n, 8))


def test_numbers_off_a_tensor(tmp_path):
    """A size read off a tensor is handed in, used or not; what cannot be is named with the line that computes it."""
    given = (torch.randn(8, 8), torch.tensor([3, 9]))
    optimize(torch.export.export(_Rows(counted=False).eval(), given), tmp_path / "model.pte", baseline="none")
    with pytest.raises(LoweringError, match=r"nonzero, .*test_loadable.py:\d+: return self.linear"):
        optimize(torch.export.export(_Rows(counted=True).eval(), given), tmp_path / "no.pte", baseline="none")


class _Kept(nn.Module):
    """Rows that pass a test: how many, only a run knows."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x):
        kept = x.sum(1) > 0
        return self.layer(x)[kept].relu(), kept.nonzero()


def test_a_program_is_lowered_again(tmp_path):
    """A size that only a run knows waits for nobody afterwards: the same program in memory gives the same file."""
    rows = torch.export.Dim("rows", min=2, max=16)
    program = torch.export.export(_Kept(), (torch.randn(4, 8),), dynamic_shapes=({0: rows},))
    first, second = (
        optimize(program, tmp_path / name, baseline="none", verify=False).output.read_bytes() for name in "ab"
    )
    assert first == second


class _Rrelu(nn.Module):
    def forward(self, x):
        return nn.functional.rrelu(x, training=True)


class _Grouped(nn.Module):
    def forward(self, x):
        ends = torch.tensor([32, 64], dtype=torch.int32)
        return torch.ops.aten._grouped_mm(x.bfloat16(), torch.ones(64, 64).bfloat16(), offs=ends)


class _Nested(nn.Module):
    """An 8da4w linear in a branch of a condition, of what another condition in that branch gives."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(64, 64)

    def forward(self, x):
        def chosen(x):
            return self.linear(torch.cond(x.sum() > 1, lambda y: y * 2, lambda y: y - 1, (x,)))

        return torch.cond(x.sum() > 0, chosen, lambda y: y * 3, (x,))


def _nested():
    return unwrap_tensor_subclass(quantize_dynamic(_Nested()))


@pytest.mark.parametrize(
    ("module", "said", "hint"),
    [
        (_nested(), r"no kernel of torchao::choose_qparams_affine and", "other operators of torch"),
        (
            _Rrelu(),
            r"no kernel of aten::rrelu_with_noise_functional \(rrelu_with_noise_functional of",
            "eval()",
        ),
        (_Grouped(), r"no kernel of aten::_grouped_mm \(_grouped_mm of forward", "other operators of torch"),
    ],
    ids=["8da4w behind two conditions", "rrelu in training", "grouped_mm"],
)
def test_operators_without_a_kernel_are_named(tmp_path, module, said, hint):
    """What ExecuTorch calls missing out variants is said of the program's own nodes, with a remedy."""
    exported = torch.export.export(module, (torch.randn(16, 64),))
    with pytest.raises(LoweringError, match=said) as caught:
        optimize(exported, tmp_path / "m.pte", baseline="none")
    assert hint in caught.value.hint
