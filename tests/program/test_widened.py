"""Programs of half precision computed in float32: inputs and outputs stay, everything between is wide."""

import json

import pytest
import torch
from programs import LanguageModel, export, indices, quantize
from torch import nn

from vkfuse.errors import LoweringError
from vkfuse.pipeline import optimize
from vkfuse.program.load import from_exported
from vkfuse.program.widened import HALVES, halves, in_float32


class _Step(nn.Module):
    """A linear, casts and constants of the module's type, and a cache of it."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(16, 16)
        self.register_buffer("seen", torch.zeros(2, 16))

    def forward(self, x, many):
        kind = x.dtype
        self.seen.add_(x)
        scaled = (self.linear(x).float() * torch.rsqrt(torch.tensor(3.0))).to(kind)
        mask = torch.full((2, 16), torch.finfo(kind).min, dtype=kind).triu(1)
        return torch.softmax(scaled + mask, -1) + self.seen, many + 1, scaled.float()


@pytest.mark.parametrize("kind", sorted(HALVES, key=str))
def test_equal_to_the_module_in_float32(kind):
    """Bit for bit what the same weights compute in float32, call after call, but for the types at the border."""
    torch.manual_seed(0)
    module = _Step().to(kind)
    inputs = (torch.randn(2, 16).to(kind), torch.arange(3))
    wide = in_float32(from_exported(export(module, *inputs)).exported)
    inside = [n.meta["val"].dtype for n in wide.graph.nodes if isinstance(n.meta.get("val"), torch.Tensor)]
    assert inside.count(kind) == 2  # the input, and the cast of the output
    assert not {t.dtype for t in (*wide.state_dict.values(), *wide.constants.values())} & HALVES
    ran, by_hand = wide.module(), _Step().to(kind).float()
    by_hand.load_state_dict({name: value.float() for name, value in module.state_dict().items()})
    for _ in range(3):
        got, want = ran(*inputs), by_hand(inputs[0].float(), inputs[1])
        assert [value.dtype for value in got] == [kind, torch.int64, torch.float32]
        assert torch.equal(got[1], want[1])
        if kind == torch.float16:  # its lowest number is another mask than float32's, with the same softmax
            torch.testing.assert_close(got[0], want[0].to(kind), rtol=0, atol=0)
        torch.testing.assert_close(got[2], want[2], rtol=0, atol=0)


def test_what_stays():
    """A program of float32 is itself; bits read as another type are refused."""
    plain = from_exported(export(nn.Linear(4, 4), torch.randn(1, 4))).exported
    assert in_float32(plain) is plain

    class Bits(nn.Module):
        def forward(self, x):
            return x.view(torch.int16) + 1

    odd = from_exported(export(Bits(), torch.randn(4).to(torch.bfloat16))).exported
    with pytest.raises(LoweringError, match="bits of floats"):
        in_float32(odd)


@pytest.mark.slow
def test_a_bfloat16_model(tmp_path):
    """4-bit linears stay 4-bit, the outputs bfloat16, the report has the measured difference; without, it is offered."""
    torch.manual_seed(0)
    module = quantize(quantize(LanguageModel().to(torch.bfloat16), nn.Linear), nn.Embedding)
    program = export(module, indices(1, 8))
    narrow = optimize(program, tmp_path / "narrow.pte", baseline="none").report
    wide = optimize(program, tmp_path / "wide.pte", baseline="none", compute="float32").report
    assert wide.output.bytes < narrow.output.bytes
    assert {t.rung for t in wide.tables} == {"q4"}
    counts = [sum(each.count for each in of.delegation.cpu.values()) for of in (narrow, wide)]
    assert counts[1] == 1 < counts[0]  # the output's cast
    assert [n for n in narrow.notes if "--compute float32" in n]
    assert [n for n in wide.notes if "given in bfloat16: up to" in n]
    assert wide.verify.ok
    assert json.dumps(sorted(map(str, halves(program)))) == '["torch.bfloat16"]'
