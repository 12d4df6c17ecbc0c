"""Operators on two operands whose shader is not torch's definition."""

import torch

from vkfuse.runtime.codes import Code
from vkfuse.verify.vulkan.call import Call

_EQUAL = 1e-5


def power(call: Call) -> torch.Tensor:
    """`(base, exponent)`: GLSL's pow, undefined for negative bases (NaN here) and for zero to no positive power (zero).

    Source: glsl/binary_op_texture.yaml, pow(X, Y).
    """
    base, exponent = call.tensor(0), call.tensor(1)
    out = torch.pow(base.abs().float(), exponent.float())
    if not bool(((base < 0) | ((base == 0) & (exponent <= 0))).any()):
        return out
    call.note(Code.POW_OF_NEGATIVE)
    return torch.where(base < 0, torch.nan, torch.where(base == 0, 0.0, out))


def power_of_scalar(call: Call) -> torch.Tensor:
    """`(base, exponent)`: glsl/binary_op_defs.glslh, power_of."""
    base, exponent = call.tensor(0).float(), float(call.args[1])
    out = base.abs().pow(exponent)
    odd = abs(exponent - round(exponent)) < _EQUAL and round(exponent) % 2 == 1
    out = torch.where(base < 0, -out if odd else out, out)
    out = torch.where(base == 0, 1.0 if exponent == 0 else 0.0, out)
    if not torch.equal(out.nan_to_num(), base.pow(exponent).nan_to_num()):
        call.note(Code.POW_BY_MAGNITUDE)
    return out


def equal(call: Call) -> torch.Tensor:
    """`(self, other)`: floats within 1e-5 of each other, integers exactly: glsl/binary_op_texture.yaml."""
    a, b = call.tensor(0), call.tensor(1)
    if not a.is_floating_point():
        return a == b
    near = (a - b).abs() < _EQUAL
    if not torch.equal(near, a == b):
        call.note(Code.EQUAL_WITHIN_1E_5)
    return near


def divide_rounded(call: Call) -> torch.Tensor:
    """`(self, other, rounding_mode)`: always ``floor(X / Y)``, a quotient of integers being one, impl/BinaryOp.cpp."""
    a, b = call.tensor(0), call.tensor(1)
    mode = "floor" if a.is_floating_point() else "trunc"
    if call.args[2] != mode:
        call.note(Code.DIVISION_ALWAYS_FLOORED)
    return torch.div(a.float(), b.float(), rounding_mode=mode)
