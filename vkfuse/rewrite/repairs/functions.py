"""Functions of numbers of which no library of ExecuTorch has a kernel, by those that have."""

import math
import operator
from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import fx

from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.repairs.each import replaces

aten = torch.ops.aten

_DETAIL: Final = "no library has a kernel"


@replaces(aten.exp2.default, code="functions-written-out", detail=_DETAIL)
def powers_of_two(x: torch.Tensor) -> torch.Tensor | None:
    """Write out `exp(x log(2))`."""
    return (x * math.log(2)).exp() if x.is_floating_point() else None


_OF_TEN: Final[Mapping[Any, float]] = {
    aten.log.default: math.log(10),
    aten.log2.default: math.log2(10),
}


@replaces(*_OF_TEN, code="logarithms-of-ten", detail="the runtime has logarithms to no other base")
def logarithms_of_ten(editor: GraphEditor, node: fx.Node, x: torch.Tensor) -> torch.Tensor | None:
    """Take logarithms of floats to the base of ten, and scale them: glsl/unary_op.yaml scales the natural one."""
    if node in editor.constants or not x.ndim or not x.is_floating_point():
        return None
    return x.log10() * _OF_TEN[node.target]


def log_of_one_more(y: torch.Tensor) -> torch.Tensor:
    """log(1 + y) of -1/2 to 1 as 2 atanh(y / (2 + y)).

    The series of atanh to the 15th power is within 2e-9 of it, relative, for s = y / (2 + y) of at most 1 / 3.
    """
    s = y / (y + 2.0)
    square = s * s
    series = square * (1 / 15)
    for power in (13, 11, 9, 7, 5, 3):
        series = (series + 1 / power) * square
    twice = s * 2.0
    return twice * series + twice


@replaces(aten.log1p.default, code="functions-written-out", detail="the runtime has no logarithm of 1 + x")
def logarithms_of_one_more(x: torch.Tensor) -> torch.Tensor | None:
    """Add a series near zero, for the nearest number that it is for, and the logarithm of what that leaves: of 1 there."""
    if not x.is_floating_point():
        return None
    near = x.clamp(-0.5, 1.0)
    return log_of_one_more(near) + ((x + 1.0) / (near + 1.0)).log()


_STEPS: Final = frozenset(
    [operator.add, operator.sub, operator.mul, operator.truediv, operator.pow, operator.neg, torch.sym_float]
)


@replaces(
    *(aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor),
    code="powers-of-sizes",
    detail="ExecuTorch computes no powers of numbers",
)
def powers_of_sizes_as_tensors(
    editor: GraphEditor, node: fx.Node, x: torch.Tensor, other: fx.Node | float
) -> torch.Tensor | None:
    """Compute `n ** -0.5` of a size n as a tensor of a double, as Python does, where a tensor is scaled by it."""
    if not isinstance(other, fx.Node) or not _has_power(other):
        return None
    return editor.again(node, other=_as_double(editor, other).to(x.dtype))


def _has_power(number: fx.Node) -> bool:
    """Whether a number is computed with a power that is no product."""
    if number.target is operator.pow and isinstance(number.meta["val"], torch.SymFloat):
        return True
    return number.target in _STEPS and any(map(_has_power, number.all_input_nodes))


def _as_double(editor: GraphEditor, number: Any) -> Any:
    """A number as a float64 tensor without dimensions; itself where it is known."""
    if not isinstance(number, fx.Node):
        return number
    if number.target is torch.sym_float:
        return _as_double(editor, number.args[0])
    if number.target in _STEPS:
        return number.target(*(_as_double(editor, term) for term in number.args))
    return editor.tensor(editor.call(aten.scalar_tensor.default, number, dtype=torch.float64))
