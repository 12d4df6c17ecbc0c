"""NaN, infinities and huge numbers as the shaders take them: what a real runtime made of them, which verify computes."""

import io
import json
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

import vkfuse
from vkfuse.lower.lowering import lower_stock
from vkfuse.options import Storage, VulkanOptions
from vkfuse.pte import parse_pte, read_pte
from vkfuse.pte.delegates import vulkan_delegates
from vkfuse.quiet import quiet
from vkfuse.report.build import measure
from vkfuse.runtime.codes import Code
from vkfuse.verify.session import run_file
from vkfuse.verify.verify import VerifyOptions, verify_file

NAN, INF = float("nan"), float("inf")
VALUES = [
    *(INF, NAN, -INF, 1e30, -1e30, 1e38, -3e38, 0.0, -0.0, 0.5, -0.5, 1.0, -2.0, 2.5, 3.0, -3.0),
    *(7.0, -20.0, 100.0, -100.0, 1e5, NAN, 0.75, 1.25, -1.75, -INF, -INF, -INF, -INF, 6.0, -7.0, 3e8),
]
MADE = {
    "relu": torch.relu,
    "clamp": lambda x: x.clamp(-1.5, 2.5),
    "clamp_max": lambda x: x.clamp(max=1.5),
    "hardtanh": lambda x: functional.hardtanh(x, -1.25, 1.25),
    "tanh": torch.tanh,
    "hardswish": functional.hardswish,
    "sin": torch.sin,
    "square": lambda x: x**2,
    "minimum": lambda x: torch.minimum(x, x.flip(0)),
    "where": lambda x: torch.where(x > x + 1, x, x - 1),
    "amax": lambda x: x.amax(-1),
    "amin": lambda x: x.amin(-1),
    "amax_along_another": lambda x: x.amax(-2, keepdim=True),
    "amin_along_another": lambda x: x.amin(-2, keepdim=True),
    "sum": lambda x: x.sum(-1),
    "mean": lambda x: x.mean(-1),
    "argmax": lambda x: x.argmax(-1),
    "argmin": lambda x: x.argmin(-1),
    "softmax": lambda x: x.softmax(-1),
    "softmax_along_another": lambda x: x.softmax(-2),
    "log_softmax": lambda x: x.log_softmax(-1),
    "log_softmax_along_another": lambda x: x.log_softmax(-2),
    "max_pool": lambda x: functional.max_pool2d(x, (2, 2), (2, 2)),
    "max_pool_of_one": lambda x: functional.max_pool2d(x, (1, 1), (1, 1)),
    "max_pool_of_padding": lambda x: functional.max_pool2d(x, (2, 2), (1, 1), (1, 1), (5, 5)),
}
RECORDED = json.loads((Path(__file__).parent / "not_finite.json").read_text("utf-8"))


class Made(nn.Module):
    """What some functions make of one input."""

    def __init__(self, functions):
        super().__init__()
        self._functions = functions

    def forward(self, x):
        return tuple(function(x) for function in self._functions)


def given():
    """Images of four by four."""
    return torch.tensor(VALUES).reshape(1, 2, 4, 4)


def lowered(storage):
    """The bytes that ExecuTorch's own lowering makes of all, which is right on other numbers."""
    exported = torch.export.export(Made(MADE.values()), (given(),))
    stream = io.BytesIO()
    with quiet():
        lower_stock({"forward": exported}, VulkanOptions(storage=Storage(storage))).write(stream)
    return stream.getvalue()


@pytest.mark.parametrize("storage", ["texture", "buffer"])
def test_as_a_real_runtime(storage):
    """Each result is the runtime's, and a run says which operators lose them."""
    session = run_file(parse_pte(lowered(storage)))
    found = dict(zip(MADE, session([given()]), strict=True))
    wanted = {name: torch.tensor(values) for name, values in RECORDED[storage].items()}
    wanted["sin"] = wanted["sin"].where(~found["sin"].flatten().isnan(), NAN)  # undefined far from zero
    assert {name for name in MADE if not _same(found[name].flatten(), wanted[name])} == set()
    assert {Code.NOT_FINITE, Code.SINE_OF_LARGE} <= session.noted.keys()


@pytest.mark.parametrize("storage", ["texture", "buffer"])
def test_a_report_counts_what_loses_them(storage):
    """The operators of a file that make something else of such values on the runtime, and no others."""
    lost = {
        name
        for name, made in MADE.items()
        if not _same(torch.tensor(RECORDED[storage][name]), made(given()).flatten()) and name != "sin"
    }
    named = {"clamp_max": "clamp", "square": "pow", "max_pool": "max_pool2d_with_indices"}
    measured = measure(parse_pte(lowered(storage)))
    on_vulkan = {name.split(".")[1].lstrip("_") for name in measured.delegation.vulkan if name.count(".") > 1}
    found = {name.split(".")[1].lstrip("_"): count for name, count in measured.not_finite.items()}
    lost = {named.get(name, name).partition("_along")[0] for name in lost}
    assert found.keys() == (lost | {"minimum"}) & on_vulkan
    assert (found["clamp"], found["softmax"], found["sum"], found["relu"]) == (2, 2, 1, 1)


def _same(found, wanted):
    return torch.allclose(found.double(), wanted.double(), rtol=1e-4, equal_nan=True)


@pytest.fixture(scope="module")
def clipped(tmp_path_factory):
    """A program that loses NaN on the runtime only, and its file."""
    exported = torch.export.export(Made([torch.relu, lambda x: x * 2]), (torch.randn(2, 8),))
    path = tmp_path_factory.mktemp("nan") / "model.pte"
    vkfuse.optimize(exported, path, baseline="none")
    return exported, read_pte(path)


@pytest.mark.parametrize(("value", "status"), [(-INF, "same"), (INF, "same"), (NAN, "differs")])
def test_inputs_with_nan(clipped, value, status):
    """Inputs that a user gives with NaN differ where the runtime loses it, with the code; infinities pass."""
    exported, file = clipped
    x = torch.randn(2, 8)
    x[1, 3] = value
    verdict = verify_file(file, exported, VerifyOptions(inputs=((x,), {})))
    assert verdict.status == status
    assert (Code.NOT_FINITE in {applied.code for applied in verdict.applied}) == (status == "differs")


class Rows(nn.Module):
    """Reductions of rows; a norm with a weight has a shader of its own."""

    def forward(self, x):
        extremes = (x.max(-1).values, x.amin(-1))
        normed = functional.rms_norm(x, (8,), torch.ones(8) * 2)
        return (
            x.sum(-1),
            x.mean(-1, keepdim=True),
            x.std(-1),
            *extremes,
            functional.normalize(x, dim=-1),
            normed,
        )


@pytest.mark.parametrize("storage", ["texture", "buffer"])
def test_rows_beyond_what_a_half_holds(tmp_path, storage):
    """Sums, means, extremes and norms of rows are right where the shader's would be clamped, of an example that is not."""
    exported = torch.export.export(Rows(), (torch.randn(4, 8),))
    chosen = VulkanOptions(storage=Storage(storage))
    report = vkfuse.optimize(exported, tmp_path / "model.pte", baseline="none", vulkan=chosen).report
    assert report.delegation.vulkan["et_vk.rms_norm.default"] == 1
    huge = VerifyOptions(inputs=((torch.randn(4, 8) * 1e8,), {}))
    verdict = verify_file(read_pte(tmp_path / "model.pte"), exported, huge)
    assert verdict.status == "same"
    assert "row-reduction-clamped" not in {applied.code for applied in verdict.applied}


_F = functional
MASKED = {
    "softmax": lambda x, mask: (x + mask).softmax(-1),
    "softmax over rows": lambda x, mask: (x + mask).softmax(-2),
    "log_softmax": lambda x, mask: (x + mask).log_softmax(-1),
    "log_softmax over rows": lambda x, mask: (x + mask).log_softmax(-2),
    "filled": lambda x, mask: x.masked_fill(mask < 0, -INF).log_softmax(-1).exp(),
    "chosen": lambda x, mask: torch.where(mask < 0, -INF, x).logsumexp(-1),
    "attention": lambda x, mask: _F.scaled_dot_product_attention(x, x, x, attn_mask=mask),
    "powers": lambda x, mask: (
        (x + mask) ** 2 + x.abs() ** 0.5 + ((x - x) ** -1).clamp(max=9.0) + (x.abs() + 1) ** -2
    ),
}


class Masked(nn.Module):
    """All of them."""

    def forward(self, x, mask):
        return tuple(function(x, mask) for function in MASKED.values())


@pytest.mark.parametrize(("storage", "fp16"), [("texture", False), ("buffer", True)])
def test_masks_of_minus_infinity(tmp_path, storage, fp16):
    """A mask of zeros and minus infinities, where no row is masked everywhere, leaves what the program does."""
    torch.manual_seed(0)
    x, mask = torch.randn(2, 3, 8, 8), torch.where(torch.rand(2, 1, 8, 8) < 0.4, -INF, 0.0)
    mask[..., 0, :], mask[..., 0] = 0, 0
    exported = torch.export.export(Masked(), (x, mask))
    vulkan = VulkanOptions(storage=Storage(storage), fp16=fp16)
    vkfuse.optimize(exported, tmp_path / "model.pte", baseline="none", vulkan=vulkan)
    file = read_pte(tmp_path / "model.pte")
    called = {call.name for delegate in vulkan_delegates(file).values() for call in delegate.graph.chain}
    assert "aten._log_softmax.default" in called
    assert "aten.pow.Tensor_Scalar" not in called
