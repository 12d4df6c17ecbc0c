"""Rows on the CPU by zero points of other types than int64: written out, and judged in a file that has them."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import vkfuse
from vkfuse.lint import faults, lint
from vkfuse.program.operators import register_operators
from vkfuse.pte import read_pte
from vkfuse.pte.enums import ScalarType
from vkfuse.pte.model import KernelCall

register_operators()
KERNEL = "quantized_decomposed::dequantize_per_token"


class Cache(nn.Module):
    """Rows [1, 8, 2, 4] of bytes that are handed out too, so that they stay bytes, with scales and zero points."""

    def __init__(self, kind):
        super().__init__()
        self.register_buffer("rows", torch.full((1, 8, 2, 4), 100, dtype=torch.int8))
        self.register_buffer("scales", torch.full((1, 8, 2, 1), 0.5))
        self.register_buffer("points", torch.full((1, 8, 2, 1), -100, dtype=kind))

    def forward(self, row, position):
        scale, point = row.abs().amax(-1, keepdim=True) / 100 + 1e-3, row[..., :1].round()
        codes = ((row / scale).round() + point).clamp(-128, 127).to(torch.int8)
        self.rows.index_copy_(1, position, codes)
        self.scales.index_copy_(1, position, scale)
        self.points.index_copy_(1, position, point.to(self.points.dtype))
        back = torch.ops.quantized_decomposed.dequantize_per_token(
            self.rows, self.scales, self.points, -128, 127, torch.int8, torch.float32
        )
        return torch.tanh(back / 64).sum(1), self.rows + 0


def _made(kind, path):
    torch.manual_seed(0)
    inputs = (torch.randn(1, 1, 2, 4), torch.tensor([2]))
    return vkfuse.optimize(torch.export.export(Cache(kind), inputs), path, baseline="none").report


@pytest.mark.slow
@pytest.mark.parametrize("kind", [torch.int8, torch.int32])
def test_are_written_out(kind, tmp_path):
    """The file has none of the kernels, and computes what torch does, differences of bytes that wrap too.

    It ran on the 1.5.0 runtime (Mesa lavapipe) with the same results; by the kernel that ended the process.
    """
    report = _made(kind, tmp_path / "model.pte")
    assert report.verify.ok
    assert f"{KERNEL}.out" not in report.delegation.cpu
    assert "affine-decomposed" in {repair.code for repair in report.repairs}


@pytest.mark.slow
def test_are_judged_in_a_file(tmp_path):
    """A kernel that gets zero points of bytes is a fault; of int64 it is none."""
    path = tmp_path / "model.pte"
    _made(torch.int64, path)
    file = read_pte(path)
    (method,) = file.methods
    calls = [entry for entry in method.instructions if isinstance(entry, KernelCall)]
    (points,) = {call.args[2] for call in calls if method.operators[call.op_index].name == KERNEL}
    assert not faults(lint(file))
    values = list(method.values)
    values[points] = replace(values[points], scalar_type=ScalarType.CHAR)
    (fault,) = faults(lint(replace(file, methods=(replace(method, values=tuple(values)),))))
    assert (fault.code, fault.name) == ("zero-points-not-int64", KERNEL)
