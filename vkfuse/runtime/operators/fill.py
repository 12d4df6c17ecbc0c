"""Tensors made from numbers."""

from collections.abc import Iterator
from typing import Final

from vkfuse.runtime.axes import axis_by_axis, counted, sized
from vkfuse.runtime.codes import Code
from vkfuse.runtime.operands import Operands
from vkfuse.runtime.record import Operator
from vkfuse.runtime.spelling import by_storage_and_dtype, dtype, storage

_NUMBERS: Final[dict[type, str]] = {int: "int32", float: "float", bool: "uint8"}  # ComputeGraph::dtype_of


def scalar_tensor(ops: Operands) -> Iterator[str]:
    """ScalarTensor.cpp: type, storage, and the number's type."""
    number = _NUMBERS.get(type(ops.value("value")))
    if ops.out and number:
        yield f"scalar_tensor_{dtype(ops.out)}_{storage(ops.out)}_{number}"


_FILLED: Final = (
    ("size", sized, ("full", "zeros", "ones")),
    ("self", axis_by_axis("self"), ("full_like", "zeros_like", "ones_like")),
)
OPERATORS: Final = (
    Operator("aten.scalar_tensor.default", "value", shaders=scalar_tensor),
    Operator("aten.arange.start_step", axes=counted, shaders=by_storage_and_dtype("arange")),
    *(
        Operator(
            f"aten.{name}.default",
            arguments,
            departs=(Code.INTEGER_ARITHMETIC,),
            axes=axes,
            shaders=by_storage_and_dtype("full"),
        )
        for arguments, axes, names in _FILLED
        for name in names
    ),
)
