"""Arithmetic, comparisons, activations and conversions, element by element."""

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from vkfuse.pte.calls import Call, Site
from vkfuse.pte.shader_names.packing import copied_like
from vkfuse.pte.shader_names.spelling import (
    FLOATS,
    Namer,
    by_dtype_and_storage,
    by_storage_and_dtype,
    dtype,
    in_buffer,
)
from vkfuse.pte.values import Bool, Double, Int
from vkfuse.pte.vulkan import SymInt, VkTensor

_BINARY: Final = {
    "aten.add.Tensor": "add",
    "aten.sub.Tensor": "sub",
    "aten.mul.Tensor": "mul",
    "aten.div.Tensor": "div",
    "aten.div.Tensor_mode": "floor_divide",
    "aten.pow.Tensor_Tensor": "pow",
    "aten.minimum.default": "minimum",
    "aten.eq.Tensor": "eq",
    "aten.lt.Tensor": "lt",
    "aten.le.Tensor": "le",
    "aten.gt.Tensor": "gt",
    "aten.ge.Tensor": "ge",
    "aten.bitwise_and.Tensor": "bitwise_and",
    "aten.logical_and.default": "bitwise_and",
    "aten.bitwise_or.Tensor": "bitwise_or",
    "aten.logical_or.default": "bitwise_or",
}
_SCALAR: Final = {
    "aten.pow.Tensor_Scalar": "pow",
    **{f"aten.{name}.Scalar": name for name in ("eq", "ne", "lt", "le", "gt", "ge")},
}
_CLAMPS: Final = ("clamp", "hardtanh", "relu", "relu6")
_UNARY: Final = {
    **{f"aten.{name}.default": "clamp" for name in _CLAMPS},
    **{
        f"aten.{name}.default": name
        for name in (
            *("abs", "cos", "exp", "gelu", "neg", "sigmoid", "sin", "sqrt", "rsqrt", "tanh", "hardshrink"),
            *("hardswish", "hardsigmoid", "leaky_relu", "log10", "round", "bitwise_not", "tan"),
        )
    },
}


def binary(operator: str) -> Namer:
    """BinaryOp.cpp: named after the output's storage and the first operand's type."""

    def names(call: Call) -> Iterator[str]:
        first, out = call.tensor(0), call.tensor(-1)
        if first and out:
            yield from copied_like(first, out, call.site)
            yield from copied_like(call.tensor(1), out, call.site)
            yield f"binary_{operator}_{call.site.storage_suffix(out)}_{dtype(first)}"

    return names


def tensor_scalar(operator: str) -> Namer:
    """BinaryScalarOp.cpp: the output's storage, the operand's type, the number's."""

    def names(call: Call) -> Iterator[str]:
        first, out = call.tensor(0), call.tensor(-1)
        number = _number(call, first) if first else ""
        if first and out and number:
            yield from copied_like(first, out, call.site)
            yield f"{operator}_scalar_{call.site.storage_suffix(out)}_{dtype(first)}_{number}"

    return names


def _number(call: Call, first: VkTensor) -> str:
    """Type that a number is passed as (resolve_scalar_extract_dtype); numbers beside floats are floats."""
    value = call.value(1)
    if isinstance(value, Double) or (first.dtype in FLOATS and isinstance(value, (Int, Bool, SymInt))):
        return "float"
    return "int32" if isinstance(value, (Int, Bool, SymInt)) else ""


def to_copy(call: Call) -> Iterator[str]:
    """ToCopy.cpp: equal types and float <-> half are blits, which need no shader."""
    source, out = call.tensor(0), call.tensor(-1)
    if source and out and source.dtype is not out.dtype and not {source.dtype, out.dtype} <= set(FLOATS):
        yield converted(call.site, source, out)


def to_dim_order_copy(call: Call) -> Iterator[str]:
    """View.cpp: a view, or a conversion where the types differ."""
    source, out = call.tensor(0), call.tensor(-1)
    if source and out:
        same = source.dtype is out.dtype
        yield viewed(call.site, out) if same else converted(call.site, source, out)


def viewed(site: Site, out: VkTensor) -> str:
    """add_view_copy_node in View.cpp: the output's type."""
    return f"view_{_resource(site, out)}_{dtype(out)}"


def converted(site: Site, source: VkTensor, out: VkTensor) -> str:
    """add_view_copy_convert_node in View.cpp."""
    return f"view_convert_{_resource(site, out)}_{dtype(source)}_{dtype(out)}"


def _resource(site: Site, tensor: VkTensor) -> str:
    """`buffer` or `texture`, as View.cpp spells it."""
    return "buffer" if in_buffer(site, tensor) else "texture"


def _all(table: Mapping[str, str], names: Callable[[str], Namer]) -> dict[str, Namer]:
    """Return a function for each operator of a table."""
    return {operator: names(shader) for operator, shader in table.items()}


NAMERS: Final[dict[str, Namer]] = {
    **_all(_BINARY, binary),
    **_all(_SCALAR, tensor_scalar),
    **_all(_UNARY, by_dtype_and_storage),
    "aten.where.self": by_storage_and_dtype("where"),
    "aten._to_copy.default": to_copy,
    "dim_order_ops._to_dim_order_copy.default": to_dim_order_copy,
}
