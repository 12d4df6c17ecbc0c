"""Tensors made from numbers."""

from collections.abc import Iterator
from typing import Final

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


OPERATORS: Final = (
    Operator("aten.scalar_tensor.default", "value", shaders=scalar_tensor),
    Operator("aten.arange.start_step", shaders=by_storage_and_dtype("arange")),
    *(
        Operator(
            f"aten.{name}.default",
            departs=(Code.INTEGER_ARITHMETIC,),
            shaders=by_storage_and_dtype("full"),
            resized=False,
        )
        for name in ("full", "full_like", "zeros", "zeros_like", "ones", "ones_like")
    ),
)
