"""CPU kernels of a program, run by the torch operators they are named after.

A kernel call lists its schema's arguments in order, outputs included, then what it returns (those ids again).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch._ops import OpOverload

from vkfuse.runtime.versions import cpu_kernels
from vkfuse.verify.bounds import check_result
from vkfuse.verify.errors import CannotVerifyError
from vkfuse.verify.tensors import scalar_dtype

_MEMORY_FORMATS: Final = ("Layout", "Device", "MemoryFormat")


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuKernel:
    """A torch operator in the place of a kernel; `outputs` are the positions of its out arguments.

    `run` returns what it computed, or nothing where that is in the out arguments only.
    """

    name: str
    run: Callable[[list[Any]], tuple[Any, ...]]
    arity: int
    outputs: tuple[int, ...]


def find_kernel(name: str, where: str) -> CpuKernel:
    """Return the kernel `namespace::packet.overload`; CannotVerifyError where torch has no such operator."""
    operator = _operator(name)
    if operator is None:
        functional = _FUNCTIONAL.get(name)
        if functional is None:
            raise CannotVerifyError(name, where)
        return functional
    arguments = operator._schema.arguments  # noqa: SLF001 - the only way to a schema
    outputs = tuple(at for at, argument in enumerate(arguments) if argument.is_out)

    def run(values: list[Any]) -> tuple[Any, ...]:
        positional, keywords = _bound(arguments, values, where)
        check_result(operator, positional, keywords)
        result = operator(*positional, **keywords)
        if result is None:
            return ()
        return tuple(result) if isinstance(result, tuple | list) else (result,)

    return CpuKernel(name=name, run=run, arity=len(arguments), outputs=outputs)


def _operator(name: str) -> OpOverload | None:
    """Return torch's operator of that name, where ExecuTorch has a kernel of it: torch has some that open files."""
    if name not in cpu_kernels():
        return None
    namespace, _, rest = name.partition("::")
    packet, _, overload = rest.partition(".")
    try:
        found = getattr(getattr(getattr(torch.ops, namespace), packet), overload or "default")
    except (AttributeError, RuntimeError):
        return None
    return found if isinstance(found, OpOverload) else None


def _bound(arguments: list[Any], values: list[Any], where: str) -> tuple[list[Any], dict[str, Any]]:
    """Split values into positional and keyword arguments, torch's types for their numbers."""
    positional: list[Any] = []
    keywords: dict[str, Any] = {}
    for argument, stored in zip(arguments, values, strict=False):
        value = _converted(str(argument.real_type), stored, where)
        if not argument.kwarg_only:
            positional.append(value)
        elif value is not None:
            keywords[argument.name] = value
    return positional, keywords


def _converted(kind: str, value: Any, where: str) -> Any:
    """Return a stored argument as torch takes it; layouts, devices and memory formats are dropped."""
    if any(name in kind for name in _MEMORY_FORMATS):
        return None
    if "ScalarType" in kind and isinstance(value, int):
        return scalar_dtype(value, where)
    return value


def _functional(
    name: str, arity: int, outputs: tuple[int, ...], run: Callable[[list[Any]], tuple[Any, ...]]
) -> tuple[str, CpuKernel]:
    return name, CpuKernel(name=name, run=run, arity=arity, outputs=outputs)


def _quantize(values: list[Any]) -> tuple[torch.Tensor]:
    x, scale, zero, low, high = values[:5]
    scaled = (x.float() * (1.0 / float(scale))).round() + int(zero)
    return (scaled.clamp(low, high),)


def _dequantize(values: list[Any]) -> tuple[torch.Tensor]:
    return ((values[0].float() - int(values[2])) * float(values[1]),)


def _quantize_channel(values: list[Any]) -> tuple[torch.Tensor]:
    x, scales, zeros, axis, low, high = values[:6]
    shape = [-1 if at == axis % x.dim() else 1 for at in range(x.dim())]
    scaled = (x.float() / scales.float().reshape(shape)).round() + zeros.reshape(shape)
    return (scaled.clamp(low, high),)


def _dequantize_channel(values: list[Any]) -> tuple[torch.Tensor]:
    x, scales, zeros, axis = values[:4]
    shape = [-1 if at == axis % x.dim() else 1 for at in range(x.dim())]
    shifted = x.float() if zeros is None else x.float() - zeros.reshape(shape)
    return (shifted * scales.float().reshape(shape),)


def _dequantize_token(values: list[Any]) -> tuple[torch.Tensor]:
    x, scales, zeros = values[:3]
    return ((x.float() - zeros.float()) * scales.float(),)


def _quantize_token(values: list[Any]) -> tuple[torch.Tensor]:
    x, scales, zeros, low, high = values[:5]
    return (((x.float() / scales.float()).round() + zeros).clamp(low, high),)


# Kernels of kernels/quantized whose out variant torch does not know; the formulas are quantized_decomposed's.
_FUNCTIONAL: Final = dict(
    (
        _functional("quantized_decomposed::quantize_per_tensor.out", 7, (6,), _quantize),
        _functional("quantized_decomposed::quantize_per_tensor.Tensor_out", 7, (6,), _quantize),
        _functional("quantized_decomposed::dequantize_per_tensor.out", 8, (7,), _dequantize),
        _functional("quantized_decomposed::dequantize_per_tensor.Tensor_out", 8, (7,), _dequantize),
        _functional("quantized_decomposed::quantize_per_channel.out", 8, (7,), _quantize_channel),
        _functional("quantized_decomposed::dequantize_per_channel.out", 9, (8,), _dequantize_channel),
        _functional("quantized_decomposed::quantize_per_token.out", 7, (6,), _quantize_token),
        _functional("quantized_decomposed::dequantize_per_token.out", 8, (7,), _dequantize_token),
    )
)
