"""Operators on one operand or two, elementwise or by rows, whose shader is not torch's default of that name."""

from collections.abc import Callable
from dataclasses import replace
from itertools import compress
from typing import Any, cast

import torch
from torch.nn import functional

from vkfuse.runtime.codes import Code
from vkfuse.verify.vulkan.call import Call, Kernel, Result

_EQUAL = 1e-5
_FLAT = 3.0  # from where on hardswish is zero, or as it is
_FAR = 1e7  # from zero, where sines are off


def gelu(call: Call) -> torch.Tensor:
    """`(input, approximate)`: always the tanh form; impl/UnaryOp.cpp."""
    if call.args[1] != "tanh":
        call.note(Code.GELU_BY_TANH)
    return functional.gelu(call.tensor(0), approximate="tanh")


def same(call: Call) -> torch.Tensor:
    """`(input, ...)`: a copy, converted to the output's type, or of a constant to the GPU."""
    return call.tensor(0)


def rms_norm(call: Call) -> torch.Tensor:
    """`(input, weight, eps)`: impl/RmsNorm.cpp."""
    x, weight = call.tensor(0).float(), call.tensor(1).float()
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + float(call.args[2])) * weight


def native_group_norm(call: Call) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """`(input, weight, bias, N, C, HxW, group, eps)`: of images; NaN for anything else (measured)."""
    out, mean, rstd = torch.native_group_norm(*call.args)
    if out.dim() == 4:
        return out, mean, rstd
    call.note(Code.GROUP_NORM_SHAPE)
    return out * torch.nan, mean, rstd


def hardswish(call: Call) -> torch.Tensor:
    """`(input,)`: zero up to -3, minus infinity too, from 3 on as it is: glsl/activations.h."""
    x = call.tensor(0)
    if bool(x.isinf().any()):
        call.note(Code.NOT_FINITE)
    return torch.where(x <= -_FLAT, 0.0, torch.where(x >= _FLAT, x, functional.hardswish(x)))


def sine(operation: Callable[[torch.Tensor], torch.Tensor]) -> Kernel:
    """Return the kernel of `(input,)`: undefined far from zero."""

    def run(call: Call) -> torch.Tensor:
        x = call.tensor(0)
        far = x.abs() > _FAR
        if not bool(far.any()):
            return operation(x)
        call.note(Code.SINE_OF_LARGE)
        return torch.where(far, torch.nan, operation(x))

    return run


def nan_as(value: float, kernel: Kernel) -> Kernel:
    """Return a kernel to which NaN is as good as a value: that of the operand or bound that drivers prefer (measured)."""

    def run(call: Call) -> Result:
        if not any(map(has_nan, call.args)):
            return kernel(call)
        call.note(Code.NOT_FINITE)
        return kernel(replace(call, args=tuple(_nan_as(value, argument) for argument in call.args)))

    return run


def largest_of_windows(kernel: Kernel) -> Kernel:
    """Return a maximum pool's kernel that begins with the lowest number: glsl/max_pool2d.glsl.

    A window of padding alone, or of minus infinity alone, has it.
    """

    def run(call: Call) -> Result:
        found = kernel(call)
        out, *rest = cast("tuple[torch.Tensor, ...]", found if isinstance(found, tuple) else (found,))
        lowest = torch.finfo(call.tensor(0).dtype).min
        if bool((out < lowest).any()):
            call.note(Code.NOT_FINITE)
        return (out.clamp(min=lowest), *rest)

    return run


def has_nan(value: Any) -> bool:
    """Whether an argument is a tensor that holds NaN."""
    return isinstance(value, torch.Tensor) and value.is_floating_point() and bool(value.isnan().any())


def _nan_as(value: float, argument: Any) -> Any:
    return torch.where(argument.isnan(), value, argument) if has_nan(argument) else argument


def minimum(call: Call) -> torch.Tensor:
    """`(self, other)`: a number where one of both is NaN (measured)."""
    x, other = call.tensor(0), call.tensor(1)
    if has_nan(x) or has_nan(other):
        call.note(Code.NOT_FINITE)
    return torch.fmin(x, other)


def conv_with_clamp(call: Call) -> torch.Tensor:
    """`(*convolution, output_min, output_max)`: impl/Convolution.cpp."""
    out: torch.Tensor = torch.ops.aten.convolution.default(*call.args[:9])
    least, most = (None if bound is None else float(torch.tensor(bound)) for bound in call.args[9:11])
    if least is None and most is None:
        return out
    if has_nan(out):
        call.note(Code.NOT_FINITE)
    return out.nan_to_num(-torch.inf, torch.inf, -torch.inf).clamp(least, most)


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
    if a.is_floating_point():
        return (a / b).floor()
    quotient = torch.div(a, b.where(b != 0, 1), rounding_mode=mode)
    return as_integers(call, quotient.float(), quotient)


def in_floats(call: Call, defined: Kernel, *, tensors: bool) -> Result:
    """Run an operator whose shader takes numbers as float32; if `tensors` it computes on all else in float32 too."""
    first = call.args[0]
    if tensors and isinstance(first, torch.Tensor) and first.dtype is torch.float16:
        return defined(replace(call, args=(first.float(), *call.args[1:])))
    wanted = defined(call)
    if not isinstance(wanted, torch.Tensor) or wanted.is_floating_point():
        return wanted
    args = tuple(_in_float(value, tensors=tensors) for value in call.args)
    return as_integers(call, cast("torch.Tensor", defined(replace(call, args=args))), wanted)


def in_widest(defined: Kernel) -> Kernel:
    """An operator whose shader reads float32 and float16 beside each other, which torch's does not take: as float32."""

    def run(call: Call) -> Result:
        floats = [isinstance(x, torch.Tensor) and x.is_floating_point() for x in call.args]
        if len({x.dtype for x in compress(call.args, floats)}) < 2:
            return defined(call)
        args = (x.float() if is_float else x for x, is_float in zip(call.args, floats, strict=True))
        return defined(replace(call, args=tuple(args)))

    return run


def _in_float(value: Any, *, tensors: bool) -> Any:
    """A number as the runtime passes it to a shader, where that computes on tensors in float32 those too."""
    if isinstance(value, torch.Tensor):
        return value.float() if tensors else value
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return value
    number = float(torch.tensor(value, dtype=torch.float32))
    return number if tensors else int(number)


def as_integers(call: Call, found: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Return what a shader makes of integers before it is stored; says so where that is not what is wanted."""
    if not torch.equal(found.to(wanted.dtype), wanted):
        call.note(Code.INTEGER_ARITHMETIC)
    return found
