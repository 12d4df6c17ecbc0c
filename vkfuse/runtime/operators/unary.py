"""Activations and other functions of one operand (UnaryOp.cpp)."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from vkfuse.runtime.axes import elementwise
from vkfuse.runtime.codes import Code, Objection
from vkfuse.runtime.operands import Operands
from vkfuse.runtime.operators.binary import COMPARES_SINCE
from vkfuse.runtime.record import Operator
from vkfuse.runtime.rules import OUTPUT, four_dimensions_in_buffers, of_truths, one_type
from vkfuse.runtime.spelling import by_dtype_and_storage

_CLAMPS: Final = ("clamp", "hardtanh", "relu", "relu6")
_OWN_SHADER: Final = (
    *("abs", "cos", "exp", "neg", "sigmoid", "sin", "sqrt", "rsqrt", "tanh", "hardshrink", "hardswish"),
    *("hardsigmoid", "leaky_relu", "log10", "round", "tan"),
)
_DEPARTS: Final = {
    **dict.fromkeys(("tanh", "hardsigmoid", "hardswish"), (Code.NOT_FINITE,)),
    **dict.fromkeys(("cos", "sin", "tan"), (Code.SINE_OF_LARGE,)),
}


def gelu_is_tanh(ops: Operands) -> Iterator[Objection]:
    """UnaryOp.cpp: gelu is computed with tanh whatever `approximate` says (measured: 5e-4 off)."""
    how = ops.value("approximate")
    if isinstance(how, str) and how != "tanh":
        yield Objection(Code.GELU_BY_TANH, f"approximate is {how}")


_RULES: Final = (four_dimensions_in_buffers,)
# Named after the output's type, as which they read their input (measured: integers between floats).
_OF_CLAMPS: Final = (*_RULES, one_type("self", OUTPUT))
_NEGATION: Final = Operator(
    "aten.bitwise_not.default",
    "self",
    rules=(*_RULES, of_truths("self")),
    axes=elementwise,
    shaders=by_dtype_and_storage("bitwise_not"),
    integers=True,
    since=COMPARES_SINCE,
)
OPERATORS: Final = (
    *(
        Operator(
            f"aten.{n}.default",
            "self",
            rules=_OF_CLAMPS,
            departs=(Code.INTEGER_ARITHMETIC, Code.NOT_FINITE),
            axes=elementwise,
            shaders=by_dtype_and_storage("clamp"),
        )
        for n in _CLAMPS
    ),
    *(
        Operator(
            f"aten.{n}.default",
            rules=_RULES,
            departs=_DEPARTS.get(n, ()),
            axes=elementwise,
            shaders=by_dtype_and_storage(n),
        )
        for n in _OWN_SHADER
    ),
    _NEGATION,
    replace(_NEGATION, integers=False, since=(0, 0, 0), until=(1, 4, 99)),
    Operator(
        "aten.gelu.default",
        "self approximate",
        rules=(*_RULES, gelu_is_tanh),
        departs=(Code.GELU_BY_TANH,),
        axes=elementwise,
        shaders=by_dtype_and_storage("gelu"),
    ),
)
