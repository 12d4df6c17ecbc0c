"""CPU kernels of a program, run by the torch operators they are named after.

A kernel call lists its schema's arguments in order, outputs included, then what it returns (those ids again).
"""

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch._ops import OpOverload

from vkfuse.program.names import is_imported
from vkfuse.pte.place import Place
from vkfuse.runtime.versions import cpu_kernels
from vkfuse.verify.bounds import bind, check_result
from vkfuse.verify.errors import CannotVerifyError
from vkfuse.verify.halves import is_summed_in_half, product_in_half, variance
from vkfuse.verify.tensors import scalar_dtype

_MEMORY_FORMATS: Final = ("Layout", "Device", "MemoryFormat")
_Run = Callable[[list[Any]], tuple[Any, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuKernel:
    """A torch operator in the place of a kernel; `outputs` are the positions of its out arguments.

    `run` returns what it computed, or nothing where that is in the out arguments only.
    """

    name: str
    run: _Run
    arity: int
    outputs: tuple[int, ...]


def find_kernel(name: str, where: Place) -> CpuKernel:
    """Return the kernel `namespace::packet.overload`; CannotVerifyError where torch has no such operator."""
    if name in _FUNCTIONAL:
        return _FUNCTIONAL[name]
    operator = _operator(name)
    if operator is None:
        raise CannotVerifyError(name, where)
    arguments = operator._schema.arguments  # noqa: SLF001 - the only way to a schema
    outputs = tuple(at for at, argument in enumerate(arguments) if argument.is_out)

    def run(values: list[Any]) -> tuple[Any, ...]:
        kinds = (str(argument.real_type) for argument in arguments)
        converted = [_converted(kind, value, where) for kind, value in zip(kinds, values, strict=False)]
        positional, keywords = bind(operator, converted)
        check_result(operator, positional, keywords)
        result = operator(*positional, **keywords)
        if result is None:
            return ()
        return tuple(result) if isinstance(result, tuple | list) else (result,)

    return CpuKernel(name=name, run=run, arity=len(arguments), outputs=outputs)


def _operator(name: str) -> OpOverload | None:
    """Return torch's operator of that name, where ExecuTorch has a kernel of it: torch has some that open files."""
    spelled = name.replace("::", ".") if "." in name else f"{name.replace('::', '.')}.default"
    if name not in cpu_kernels() and not is_imported(spelled):
        return None
    namespace, _, rest = name.partition("::")
    if namespace in _ABORT:
        return None
    packet, _, overload = rest.partition(".")
    try:
        found = getattr(getattr(getattr(torch.ops, namespace), packet), overload or "default")
    except (AttributeError, RuntimeError):
        return None
    return found if isinstance(found, OpOverload) else None


def _converted(kind: str, value: Any, where: Place) -> Any:
    """Return a stored argument as torch takes it; layouts, devices and memory formats are dropped."""
    if any(name in kind for name in _MEMORY_FORMATS):
        return None
    if "ScalarType" in kind and isinstance(value, int):
        return scalar_dtype(value, where)
    return value


def quantize(values: Sequence[Any]) -> tuple[torch.Tensor]:
    """`(input, scale, zero_point, quant_min, quant_max, ...)`: integers as floats, as op_quantize.cpp of quantized/cpu."""
    x, scale, zero, low, high = values[:5]
    scaled = (x.float() * (1.0 / float(scale))).round() + int(zero)
    return (scaled.clamp(low, high),)


def dequantize(values: Sequence[Any]) -> tuple[torch.Tensor]:
    """`(input, scale, zero_point, ...)`."""
    return ((values[0].float() - int(values[2])) * float(values[1]),)


def _by_channel(rows: _Run) -> _Run:
    """A kernel of rows for channels, along the axis that stands behind the zero points."""

    def run(values: list[Any]) -> tuple[Any, ...]:
        x, scales, zeros, axis, *others = values
        shape = [-1 if at == axis % x.dim() else 1 for at in range(x.dim())]
        return rows([x, scales.reshape(shape), _points(zeros, scales).reshape(shape), *others])

    return run


def _dequantize_token(values: list[Any]) -> tuple[torch.Tensor]:
    x, scales, zeros = values[:3]
    return ((x.float() - zeros.float()) * scales.float(),)


def _quantize_token(values: list[Any]) -> tuple[torch.Tensor]:
    x, scales, zeros, low, high = values[:5]
    return (((x.float() / scales.float()).round() + zeros).clamp(low, high),)


def _choose_token(values: list[Any]) -> tuple[Any, ...]:
    """The formula that torch registers, for int8 as the kernel's (kernels/quantized/cpu/op_choose_qparams.cpp)."""
    return tuple(
        torch.ops.quantized_decomposed.choose_qparams_per_token_asymmetric.default(values[0], torch.int8)
    )


def _product(values: list[Any]) -> tuple[torch.Tensor]:
    first, second = values[:2]
    if is_summed_in_half(first, second):
        return (product_in_half(first, second, fused=False),)
    return (first @ second,)


def _product_and_sum(values: list[Any]) -> tuple[torch.Tensor]:
    bias, first, second, beta, alpha = values[:5]
    return (bias * beta + _product([first, second])[0] * alpha,)


def _largest_of_windows(values: list[Any]) -> tuple[torch.Tensor, ...]:
    """Zero of padding alone, NaN where that comes first: kernel_ops_util.h, apply_kernel_2d_reduce_then_map_fn."""
    x, *sizes = values[:6]
    pool = torch.ops.aten.max_pool2d_with_indices.default
    numbers = torch.where(x.isnan(), -torch.inf, x) if x.is_floating_point() else x
    check_result(pool, (numbers, *sizes), {})
    largest, places = pool(numbers, *sizes)
    order = torch.arange(x.shape[-2:].numel(), dtype=torch.float64).reshape(x.shape[-2:]).expand(x.shape)
    first = -pool(-order, *sizes)[0]
    found = x.flatten(-2).gather(-1, first.nan_to_num(posinf=0).long().flatten(-2)).reshape(first.shape)
    return torch.where(first.isinf(), 0, torch.where(found.isnan(), found, largest)), places


def _adaptive_mean(values: list[Any]) -> tuple[torch.Tensor]:
    """NaN where windows do not end as they should: kernels/portable/cpu/op__adaptive_avg_pool2d.cpp divides in float32."""
    x, sizes = values[:2]
    out = torch.ops.aten._adaptive_avg_pool2d.default(x, sizes)  # noqa: SLF001 - the operator's name
    high, wide = (
        _windows(size, many).ne(_windows(size, many, torch.float32)).any(0)
        for size, many in zip(x.shape[-2:], sizes, strict=True)
    )
    return (out.masked_fill(high[:, None] | wide, torch.nan),)


def _windows(size: int, many: int, kind: torch.dtype = torch.float64) -> torch.Tensor:
    """First and last rows of the windows of an adaptive pool, their quotients of a type."""
    at = torch.arange(many + 1) * size
    quotients = at.to(kind) / many
    return torch.stack([quotients[:-1].floor(), quotients[1:].ceil()])


def _remainder(values: list[Any]) -> tuple[torch.Tensor]:
    """The sign of what is divided, of integers: kernels/portable/cpu/util/math_util.h, remainder_override."""
    result = torch.remainder(*values[:2])
    return (result if result.dtype.is_floating_point else torch.fmod(*values[:2]),)


def _variance(values: list[Any]) -> tuple[torch.Tensor]:
    """`(input, dims, correction or unbiased, keepdim)`."""
    x, dims, less, keepdim = values[:4]
    less, dims = 1 if less is None else less, dims or None
    if x.dim() and x.dtype in {torch.float16, torch.bfloat16}:
        return (variance(x, dims, float(less), keepdim=keepdim),)
    return (torch.var(x, dims, correction=float(less), keepdim=keepdim),)


def _convolution(values: list[Any]) -> tuple[torch.Tensor]:
    """Of sequences and images: kernels/portable/cpu/util/kernel_ops_util.cpp, check_convolution_args."""
    if values[0].dim() > _IMAGE:
        raise ValueError("the kernel convolves sequences and images, no volumes")
    operator, given = torch.ops.aten.convolution.default, tuple(values[:9])
    check_result(operator, given, {})
    return (operator(*given),)


def _delta_rule(values: list[Any]) -> tuple[torch.Tensor, ...]:
    """`(query, key, value, decay, beta, state, ..)`, row by row: op_sdpa.cpp, gated_delta_rule_recurrence."""
    query, key, value, decay, beta, state = values[:6]
    faded, read = decay if decay.dim() == key.dim() else decay[..., None], []
    for row in range(value.shape[2]):
        at = slice(row, row + 1)
        state = state * faded[:, :, at].transpose(2, 3)
        new = (value[:, :, at] - key[:, :, at] @ state) * beta[:, :, at, None]
        state = state + key[:, :, at].transpose(2, 3) * new
        read.append((query[:, :, at].reshape(*key.shape[:2], -1, key.shape[3]) @ state).flatten(1, 2))
    return torch.stack(read, 2), state


def _lookup(packet: str, bits: int, typed: bool) -> tuple[str, int, tuple[int, ...], _Run]:
    """Return the kernel of `(weight, scales, zero_points, low, high, indices[, dtype], out)`: op_embedding*.cpp."""

    def run(values: list[Any]) -> tuple[torch.Tensor]:
        weight, scales, zeros, indices = values[0], values[1].float(), values[2], values[5]
        rows = _fields(weight[indices], bits)
        groups = scales.shape[1] if scales.dim() > 1 else 1
        scales, shift = (
            x[indices].reshape(*indices.shape, groups, 1) for x in (scales, _points(zeros, scales))
        )
        grouped = rows.float().reshape(*indices.shape, groups, -1)
        return (((grouped - shift) * scales).flatten(-2),)

    overload, arity = ("dtype_out", 8) if typed else ("out", 7)
    return f"quantized_decomposed::{packet}.{overload}", arity, (arity - 1,), run


def _points(zeros: torch.Tensor | None, scales: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(scales) if zeros is None else zeros.float()


def _fields(rows: torch.Tensor, bits: int) -> torch.Tensor:
    """Unpack values of fewer than 8 bits, stored plus half their range: 4-bit ones high first, 2-bit ones low first."""
    if bits == _BYTE:
        return rows
    shifts = torch.arange(0, _BYTE, bits, dtype=torch.int32)
    fields = rows.int()[..., None] >> (shifts.flip(0) if bits == _NIBBLE else shifts)
    return ((fields & ((1 << bits) - 1)) - (1 << (bits - 1))).flatten(-2)


_ABORT: Final = ("llama", "quantized_decomposed")  # whose kernels end the process where they refuse
_BYTE, _NIBBLE = 8, 4
_IMAGE: Final = 4  # dimensions
_LOOKUPS: Final = (("embedding_byte", 8), ("embedding_4bit", 4), ("embedding_2bit", 2))

# Kernels of kernels/quantized whose out variant torch does not know (the formulas are quantized_decomposed's), and those
# that compute as torch does not, or refuse what it takes.
_FUNCTIONAL: Final = {
    name: CpuKernel(name=name, run=run, arity=arity, outputs=outputs)
    for name, arity, outputs, run in (
        ("quantized_decomposed::quantize_per_tensor.out", 7, (6,), quantize),
        ("quantized_decomposed::quantize_per_tensor.Tensor_out", 7, (6,), quantize),
        ("quantized_decomposed::dequantize_per_tensor.out", 8, (7,), dequantize),
        ("quantized_decomposed::dequantize_per_tensor.Tensor_out", 8, (7,), dequantize),
        ("quantized_decomposed::quantize_per_channel.out", 8, (7,), _by_channel(_quantize_token)),
        ("quantized_decomposed::dequantize_per_channel.out", 9, (8,), _by_channel(_dequantize_token)),
        ("quantized_decomposed::choose_qparams_per_token_asymmetric.out", 4, (2, 3), _choose_token),
        ("quantized_decomposed::quantize_per_token.out", 7, (6,), _quantize_token),
        ("quantized_decomposed::dequantize_per_token.out", 8, (7,), _dequantize_token),
        ("aten::mm.out", 3, (2,), _product),
        ("aten::bmm.out", 3, (2,), _product),
        ("aten::addmm.out", 6, (5,), _product_and_sum),
        ("aten::var.out", 5, (4,), _variance),
        ("aten::var.correction_out", 5, (4,), _variance),
        ("aten::convolution.out", 10, (9,), _convolution),
        ("aten::max_pool2d_with_indices.out", 8, (6, 7), _largest_of_windows),
        ("aten::_adaptive_avg_pool2d.out", 3, (2,), _adaptive_mean),
        ("llama::gated_delta_rule.out", 8, (6, 7), _delta_rule),
        ("aten::remainder.Scalar_out", 3, (2,), _remainder),
        ("aten::remainder.Tensor_out", 3, (2,), _remainder),
        *(_lookup(packet, bits, typed) for packet, bits in _LOOKUPS for typed in (False, True)),
    )
}


# ExecuTorch's own scalar kernels (kernels/prim_ops/register_prim_ops.cpp): inputs, then the output.
Prim = Callable[..., Any]
_OPERATORS: Final = ("add", "eq", "floordiv", "ge", "gt", "le", "lt", "mod", "mul", "neg", "sub", "truediv")
PRIMS: Final[dict[str, Prim]] = {
    "aten::_local_scalar_dense": torch.Tensor.item,
    "aten::sym_numel": torch.Tensor.numel,
    "aten::sym_size.int": torch.Tensor.size,
    "executorch_prim::ceil.Scalar": math.ceil,
    "executorch_prim::et_view.default": torch.Tensor.view,
    "executorch_prim::floordiv.int": operator.floordiv,
    "executorch_prim::mod.int": operator.mod,
    "executorch_prim::round.Scalar": round,
    "executorch_prim::sym_float.Scalar": float,
    "executorch_prim::sym_int.Scalar": int,
    "executorch_prim::sym_ite.Scalar": lambda condition, yes, no: yes if condition else no,
    "executorch_prim::sym_max.Scalar": max,
    "executorch_prim::sym_min.Scalar": min,
    "executorch_prim::sym_not.Scalar": operator.not_,
    "executorch_prim::trunc.Scalar": math.trunc,
    **{f"executorch_prim::{name}.Scalar": getattr(operator, name) for name in _OPERATORS},
}
