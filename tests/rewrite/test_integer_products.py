"""Products of int8 codes, as torchao writes them for several CPUs, as the linears that they stand for."""

import pytest
import torch
from torch import nn

from vkfuse.program.load import from_exported
from vkfuse.program.operators import register_operators
from vkfuse.rewrite.repairs.matmuls import integer_matmuls_as_linears

register_operators()
aten, torchao = torch.ops.aten, torch.ops.torchao


class Product(nn.Module):
    """Rows [n, 32] quantized by `mapping`, times int8 [32, 24], by uint8 codes where `shift` is what they are raised by."""

    def __init__(self, shift=0, taken=None, mapping="SYMMETRIC", inputs=32, own=True):
        super().__init__()
        self.shift, self.mapping, self.inputs, self.own = shift, mapping, inputs, own
        self.register_buffer("weight", torch.randint(-128, 128, (24, inputs), dtype=torch.int8))
        self.register_buffer("scales", torch.rand(24) / 100)
        self.taken = shift if taken is None else taken

    def forward(self, x):
        block = [1, self.inputs]
        choice = (torch.int8, -128, 127, 1e-7, torch.float32, torch.int8, True)
        scale, point = torchao.choose_qparams_affine.default(x, self.mapping, block, *choice)
        codes = torchao.quantize_affine.default(x, block, scale, point, torch.int8, -128, 127)
        weight = self.weight.t()
        if self.shift:
            codes = (codes.to(torch.int32) + self.shift).to(torch.uint8)
        sums = torch._int_mm(codes, weight)
        if self.shift:
            sums = sums - weight.sum(0, keepdim=True, dtype=torch.int32) * self.taken
        return sums.to(torch.float32) * (scale if self.own else scale * 2) * self.scales


def _made(module):
    exported = from_exported(torch.export.export(module.eval(), (torch.randn(7, module.inputs),))).exported
    return exported, *integer_matmuls_as_linears(exported)


@pytest.mark.parametrize("shift", [0, 128])
def test_are_linears(shift):
    """The same numbers up to the rounding of float32, rows of zeros among them, and no integer product."""
    torch.manual_seed(0)
    exported, after, (repair,) = _made(Product(shift))
    assert repair.code == "int-mm-as-linears"
    assert not after.graph.find_nodes(op="call_function", target=aten._int_mm.default)
    x = torch.randn(7, 32) * torch.tensor([0.0, 1e-9, 1e-3, 1.0, 1e3, 1.0, 1.0])[:, None]
    torch.testing.assert_close(after.module()(x), exported.module()(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "module",
    [
        lambda: Product(128, taken=127),
        lambda: Product(64),
        lambda: Product(own=False),
        lambda: Product(inputs=34),
        lambda: Product(mapping="ASYMMETRIC"),
    ],
    ids=["other sums", "other codes", "other scales", "no texels", "zero points"],
)
def test_others_are_left(module):
    """What is subtracted, added or multiplied must be what quantization makes of these very codes."""
    _, after, repairs = _made(module())
    assert not repairs
    assert after.graph.find_nodes(op="call_function", target=aten._int_mm.default)
