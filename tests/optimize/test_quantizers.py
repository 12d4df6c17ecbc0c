"""What torchao's and ExecuTorch's quantizers make of small networks: one delegate, one byte a weight or a half.

Each file was run on the 1.5.0 runtime (main of 2026-08-22, Mesa lavapipe), and was right there.
"""

import pytest
import torch
from executorch.backends.vulkan.quantizer import vulkan_quantizer
from executorch.backends.xnnpack.quantizer import xnnpack_quantizer
from programs import export, quantize_dynamic
from torch import nn
from torch.nn import functional
from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

import vkfuse

CHOSEN = {"baseline": "none", "runtime": "1.5.0"}


class Layers(nn.Module):
    """Two linears with a gelu between them."""

    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(64, 128), nn.Linear(128, 32, bias=False)

    def forward(self, x):
        return self.down(functional.gelu(self.up(x), approximate="tanh"))


class Normed(nn.Module):
    """A linear behind an RMS norm that is written out, whose epsilon PT2E keeps as a tensor."""

    def __init__(self):
        super().__init__()
        self.weight, self.head = nn.Parameter(torch.rand(64) + 0.5), nn.Linear(64, 32)

    def forward(self, x):
        return self.head(x * torch.rsqrt((x * x).mean(-1, keepdim=True) + 1e-5) * self.weight)


class Images(nn.Module):
    """Convolutions, half of a residual, a mean and a linear: PT2E quantizes the half too."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.head = nn.Linear(16, 10)

    def forward(self, x):
        x = torch.relu(self.first(x))
        return self.head((x * 0.5 + torch.relu(self.second(x))).mean((2, 3)))


def _pt2e(module, quantizer, x):
    prepared = prepare_pt2e(export(module, x).module(), quantizer)
    for scale in (1.0, 0.5):
        prepared(x * scale)
    return torch.export.export(convert_pt2e(prepared), (x,))


def _by_vulkan(**config):
    chosen = vulkan_quantizer.get_symmetric_quantization_config(**config)
    return vulkan_quantizer.VulkanQuantizer().set_global(chosen)


def _static():
    chosen = xnnpack_quantizer.get_symmetric_quantization_config(is_per_channel=True)
    return xnnpack_quantizer.XNNPACKQuantizer().set_global(chosen)


def _int8_on_int8(module):
    quantize_(module, Int8DynamicActivationInt8WeightConfig())
    return module


ROWS = (8, 64)
NETWORKS = {
    "VulkanQuantizer, weights": lambda: _pt2e(Layers().eval(), _by_vulkan(), torch.randn(ROWS)),
    "VulkanQuantizer, weights behind a norm": lambda: _pt2e(Normed().eval(), _by_vulkan(), torch.randn(ROWS)),
    "VulkanQuantizer, 8da8w": lambda: _pt2e(
        Layers().eval(), _by_vulkan(is_dynamic=True), torch.randn(2, *ROWS)
    ),
    "VulkanQuantizer, 8da4w": lambda: _pt2e(
        Layers().eval(), _by_vulkan(is_dynamic=True, weight_bits=4), torch.randn(ROWS)
    ),
    "torchao, 8da8w": lambda: export(
        quantize_dynamic(Layers().eval(), group=None, bits=torch.int8), torch.randn(ROWS)
    ),
    "torchao, int8 on dynamic int8": lambda: export(_int8_on_int8(Layers().eval()), torch.randn(2, *ROWS)),
    "XNNPACKQuantizer, static": lambda: _pt2e(Images().eval(), _static(), torch.randn(1, 3, 12, 12)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_one_delegate(name, tmp_path):
    """All of a network is in one delegate, by one byte a weight at most, and computes what the program does."""
    torch.manual_seed(0)
    report = vkfuse.optimize(NETWORKS[name](), tmp_path / "model.pte", **CHOSEN).report
    assert report.verify.ok
    assert (report.delegation.subgraphs, report.delegation.crossings) == (1, 2)
    assert not report.delegation.cpu
    assert {table.rung for table in report.tables} == {"q4" if "4w" in name else "q8"}


def test_the_vulkan_quantizer_leaves_convolutions_alone():
    """It annotates linears only, and has no static activations: XNNPACK's does both."""
    assert vulkan_quantizer._SUPPORTED_OPS == ["linear"]
