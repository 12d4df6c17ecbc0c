"""Functions of numbers of which no library of ExecuTorch has a kernel, by those that have."""

import math
import operator
from collections.abc import Callable, Mapping
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


# Press et al., Numerical Recipes, 6.2.2: of a relative error of 1.2e-7.
_TAIL: Final = (
    *(-1.26551223, 1.00002368, 0.37409196, 0.09678418, -0.18628806),
    *(0.27886807, -1.13520398, 1.48851587, -0.82215223, 0.17087277),
)


@replaces(aten.erfc.default, code="functions-written-out", detail=_DETAIL)
def error_functions_less_one(x: torch.Tensor) -> torch.Tensor | None:
    """Write out `1 - erf(x)` so that small results are right too: `t exp(p(t) - x^2)`, t = 2 / (2 + |x|)."""
    if not x.is_floating_point() or x.dtype is torch.float64:
        return None
    t = 2.0 / (x.abs() + 2.0)
    exponent = t * _TAIL[-1] + _TAIL[-2]
    for term in _TAIL[-3::-1]:
        exponent = exponent * t + term
    tail = t * (exponent - x * x).exp()
    return torch.where(x >= 0, tail, 2.0 - tail)


@replaces(aten.hypot.default, code="functions-written-out", detail=_DETAIL)
def hypotenuses(x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Write out the root of the sum of squares of what is scaled to at most one."""
    one, two = x.abs(), other.abs()
    scale = one.maximum(two).clamp(torch.finfo(x.dtype).tiny, torch.finfo(x.dtype).max)
    one, two = one / scale, two / scale
    return (one * one + two * two).sqrt() * scale


@replaces(aten.signbit.default, code="functions-written-out", detail=_DETAIL)
def signs_as_comparisons(x: torch.Tensor) -> torch.Tensor:
    """Compare with zero; a negative zero has a negative reciprocal."""
    return _is_negative(x)


@replaces(aten.copysign.Tensor, aten.copysign.Scalar, code="functions-written-out", detail=_DETAIL)
def signs_of_others(x: torch.Tensor, other: torch.Tensor | float) -> torch.Tensor | None:
    """Choose between a magnitude and its negative."""
    if not x.is_floating_point():
        return None
    size = x.abs()
    if isinstance(other, (int, float)):
        return -size if math.copysign(1.0, other) < 0 else size
    return torch.where(_is_negative(other), -size, size)


def _is_negative(x: torch.Tensor) -> torch.Tensor:
    negative = x < 0
    return negative.logical_or(x.reciprocal() < 0) if x.is_floating_point() else negative


_EXTREMES: Final[Mapping[Any, Callable[..., torch.Tensor]]] = {
    aten.fmax.default: torch.maximum,
    aten.fmin.default: torch.minimum,
}


@replaces(*_EXTREMES, code="functions-written-out", detail=_DETAIL)
def extremes_of_numbers(node: fx.Node, x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Choose the larger or smaller of two tensors, or the number where one is none."""
    extreme = _EXTREMES[node.target](x, other)
    if not extreme.is_floating_point():
        return extreme
    return torch.where(x.ge(x), torch.where(other.ge(other), extreme, x), other)


@replaces(aten.round.decimals, code="functions-written-out", detail=_DETAIL)
def rounded_to_decimals(x: torch.Tensor, decimals: int) -> torch.Tensor:
    """Round what is scaled by a power of ten (aten/native/cpu/UnaryOpsKernel.cpp, round_decimals_kernel)."""
    scale = 10.0 ** abs(decimals)
    return (x * scale).round() / scale if decimals > 0 else (x / scale).round() * scale


@replaces(aten.addmv.default, code="functions-written-out", detail=_DETAIL)
def sums_with_products(
    x: torch.Tensor, mat: torch.Tensor, vec: torch.Tensor, beta: float, alpha: float
) -> torch.Tensor:
    """Multiply by a matrix of one column."""
    product = (mat @ vec.unsqueeze(-1)).squeeze(-1)
    product = product if alpha == 1 else product * alpha
    return product if beta == 0 else product + (x if beta == 1 else x * beta)


@replaces(aten.angle.default, code="functions-written-out", detail=_DETAIL)
def angles_of_real_numbers(x: torch.Tensor) -> torch.Tensor | None:
    """Choose pi for what is negative, no number where it is none."""
    if not x.is_floating_point():
        return None
    return torch.where(x < 0, math.pi, torch.where(x.ge(x), 0.0, x))


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
