"""Activations that a program rounds itself: what lies on the edge between two steps may fall to either."""

import torch
from torch import nn
from torch.ao.quantization.fx import _decomposed  # noqa: F401 - registers quantize_per_token

import vkfuse
from vkfuse.pte import read_pte
from vkfuse.verify.verify import verify_file


class Rounded(nn.Module):
    """Rows in 256 steps of their own, and back, times `factor`."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        ops = torch.ops.quantized_decomposed
        steps = (*ops.choose_qparams_per_token_asymmetric.default(x, torch.int8), -128, 127, torch.int8)
        codes = ops.quantize_per_token.default(x, *steps)
        return ops.dequantize_per_token.default(codes, *steps, torch.float32) * self.factor


def test_values_on_the_edge(tmp_path):
    """They pass, with the reason, where they fall to the other side; the same rows 1% off do not."""
    scales = torch.rand(64, 1, generator=torch.Generator().manual_seed(0)) + 0.5
    halves = torch.arange(253.0) + 0.5
    given = (torch.cat([torch.tensor([0.0, 255.0]), halves]) * scales,)
    exported, other = (torch.export.export(Rounded(factor), given) for factor in (1.0, 1.01))
    vkfuse.optimize(exported, tmp_path / "model.pte", baseline="none")
    file = read_pte(tmp_path / "model.pte")
    verdict = verify_file(file, exported)
    assert verdict.ok
    assert any("edge" in run.reason and run.eager_rel > 1e-3 for run in verdict.runs)
    assert not verify_file(file, other).ok
