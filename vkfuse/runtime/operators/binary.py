"""Arithmetic and comparisons of two operands, element by element (BinaryOp.cpp, BinaryScalarOp.cpp)."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from vkfuse.runtime.axes import elementwise
from vkfuse.runtime.codes import Code, Objection
from vkfuse.runtime.operands import Operands, Symbol, Tensor
from vkfuse.runtime.packing import copied_like
from vkfuse.runtime.record import Namer, Operator
from vkfuse.runtime.rules import of_truths, one_type
from vkfuse.runtime.spelling import FLOATS, by_storage_and_dtype, dtype, storage


def an_operand_has_a_dimension(ops: Operands) -> Iterator[Objection]:
    """utils/TensorUtils.cpp, calculate_broadcasted_output_size: one of two operands (measured: x * 2, x a scalar)."""
    first, second = ops.tensor("self"), ops.value("other")
    alone = isinstance(second, (int, float)) or (isinstance(second, Tensor) and not second.dims)
    if first and not first.dims and alone:
        yield Objection(Code.TWO_SCALARS, "both operands have no dimensions")


def number_has_32_bits(ops: Operands) -> Iterator[Objection]:
    """BinaryScalarOp.cpp, extract_int32_scalar: utils::safe_downcast aborts (measured)."""
    first, number = ops.tensor("self"), ops.integer("other")
    if first and first.dtype not in FLOATS and number is not None and not -_BEYOND <= number < _BEYOND:
        yield Objection(Code.NUMBER_BEYOND_32_BITS, f"{number:,}")


_BEYOND: Final = 1 << 31


def rounds_as_its_type(ops: Operands) -> Iterator[Objection]:
    """A rounding mode other than that of ``floor(X / Y)``: towards zero for integers (measured), else down."""
    mode, first = ops.value("rounding_mode"), ops.tensor("self")
    if first and mode != ("floor" if first.dtype in FLOATS else "trunc"):
        yield Objection(Code.DIVISION_ALWAYS_FLOORED, f"rounding_mode is {mode}")


def bases_are_positive(ops: Operands) -> Iterator[Objection]:
    """No power of tensors is safe."""
    if ops.tensor("self"):
        yield Objection(Code.POW_OF_NEGATIVE, "a power of tensors")


def condition_has_every_dimension(ops: Operands) -> Iterator[Objection]:
    """Where.cpp, resize_where_node: sizes are aligned with those before, which may be fewer (measured)."""
    condition, out = ops.tensor("condition"), ops.out
    if condition and out and out.dynamic and 0 < len(condition.dims) < len(out.dims):
        detail = f"a condition of {len(condition.dims)} dimensions for {len(out.dims)}"
        yield Objection(Code.CONDITION_RANK, detail)


def names(shader: str) -> Namer:
    """BinaryOp.cpp: named after the output's storage and the first operand's type."""

    def binary(ops: Operands) -> Iterator[str]:
        first, out = ops.tensor("self"), ops.out
        if first and out:
            yield from copied_like(first, out)
            yield from copied_like(ops.tensor("other"), out)
            yield f"binary_{shader}_{storage(out)}_{dtype(first)}"

    return binary


def names_with_scalar(shader: str) -> Namer:
    """BinaryScalarOp.cpp: the output's storage, the operand's type, the number's."""

    def binary(ops: Operands) -> Iterator[str]:
        first, out = ops.tensor("self"), ops.out
        number = _number(ops, first) if first else ""
        if first and out and number:
            yield from copied_like(first, out)
            yield f"{shader}_scalar_{storage(out)}_{dtype(first)}_{number}"

    return binary


def _number(ops: Operands, first: Tensor) -> str:
    """Type that a number is passed as (resolve_scalar_extract_dtype); numbers beside floats are floats."""
    value = ops.value("other")
    if not isinstance(value, (int, float, Symbol)):
        return ""
    return "float" if isinstance(value, float) or first.dtype in FLOATS else "int32"


_SHADERS: Final = {
    **{f"aten.{name}.Tensor": name for name in ("add", "sub", "mul", "div")},
    "aten.minimum.default": "minimum",
}
_OF_TRUTHS: Final = {
    "aten.bitwise_and.Tensor": "bitwise_and",
    "aten.logical_and.default": "bitwise_and",
    "aten.bitwise_or.Tensor": "bitwise_or",
    "aten.logical_or.default": "bitwise_or",
}
_ONE_TYPE: Final = one_type("self", "other")
COMPARES_SINCE: Final = (1, 5, 0)  # where comparisons, and what is made of truths, were run
_TRUTHS: Final = tuple(
    Operator(
        name,
        "self other",
        rules=(an_operand_has_a_dimension, of_truths("self", "other")),
        axes=elementwise,
        shaders=names(shader),
        integers=True,
        since=COMPARES_SINCE,
    )
    for name, shader in _OF_TRUTHS.items()
)
_COMPARISONS: Final = tuple(
    Operator(
        f"aten.{name}.Tensor",
        "self other",
        rules=(an_operand_has_a_dimension, _ONE_TYPE),
        axes=elementwise,
        shaders=names(name),
        compares=True,
        since=COMPARES_SINCE,
    )
    for name in ("lt", "le", "gt", "ge")
)
_DEPARTS: Final = {
    **dict.fromkeys(("add", "sub"), (Code.INTEGER_ARITHMETIC,)),
    "minimum": (Code.NOT_FINITE,),
}
OPERATORS: Final = (
    *(
        Operator(
            name,
            "self other",
            rules=(an_operand_has_a_dimension, _ONE_TYPE),
            departs=_DEPARTS.get(shader, ()),
            axes=elementwise,
            shaders=names(shader),
        )
        for name, shader in _SHADERS.items()
    ),
    *_TRUTHS,
    *(replace(each, integers=False, since=(0, 0, 0), until=(1, 4, 99)) for each in _TRUTHS),
    *_COMPARISONS,
    *(replace(each, compares=False, since=(0, 0, 0), until=(1, 4, 99)) for each in _COMPARISONS),
    Operator(
        "aten.eq.Tensor",
        "self other",
        rules=(an_operand_has_a_dimension, _ONE_TYPE),
        departs=(Code.EQUAL_WITHIN_1E_5,),
        axes=elementwise,
        shaders=names("eq"),
    ),
    Operator(
        "aten.div.Tensor_mode",
        "self other rounding_mode",
        rules=(an_operand_has_a_dimension, _ONE_TYPE, rounds_as_its_type),
        departs=(Code.DIVISION_ALWAYS_FLOORED, Code.INTEGER_ARITHMETIC),
        axes=elementwise,
        shaders=names("floor_divide"),
    ),
    Operator(
        "aten.pow.Tensor_Tensor",
        "self other",
        rules=(an_operand_has_a_dimension, _ONE_TYPE, bases_are_positive),
        departs=(Code.POW_OF_NEGATIVE,),
        axes=elementwise,
        shaders=names("pow"),
    ),
    Operator(
        "aten.pow.Tensor_Scalar",
        "self other",
        rules=(number_has_32_bits,),
        departs=(Code.POW_BY_MAGNITUDE, Code.NOT_FINITE),
        axes=elementwise,
        shaders=names_with_scalar("pow"),
    ),
    *(
        Operator(
            f"aten.{name}.Scalar",
            "self other",
            rules=(number_has_32_bits,),
            axes=elementwise,
            shaders=names_with_scalar(name),
            compares=name not in {"eq", "ne"},
        )
        for name in ("eq", "ne", "lt", "le", "gt", "ge")
    ),
    Operator(
        "aten.where.self",
        "condition self other",
        rules=(condition_has_every_dimension, _ONE_TYPE),
        axes=elementwise,
        shaders=by_storage_and_dtype("where"),
        integers=True,
    ),
)
