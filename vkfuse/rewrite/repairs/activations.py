"""Functions of floats that the runtime has no operator of, by those that it has: exponentials, quotients, clamps."""

import math
from collections.abc import Callable, Mapping
from typing import Final

import torch
from torch import fx

from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.operands import operand
from vkfuse.rewrite.repairs.each import replaces

aten = torch.ops.aten

_SATURATED: Final = {torch.float16: 5.0}  # from where on n / (n + 2) is one
_SATURATED_FLOAT: Final = 20.0


@replaces(
    *(aten.elu.default, aten.celu.default),
    code="activations-written-out",
    detail="the runtime has exponentials, not these",
)
def exponential_units_written_out(node: fx.Node, x: torch.Tensor) -> torch.Tensor:
    """Write out `scale * (relu(x) + alpha * (exp(inner * min(x, 0)) - 1))` (aten::elu)."""
    alpha, scale, inner = _numbers(node)
    below = _times(-(-x).relu(), inner).exp() - 1.0
    return _times(x.relu(), scale) + _times(below, alpha * scale)


def _numbers(node: fx.Node) -> tuple[float, float, float]:
    """Alpha, the scale, and that of what is in the exponent."""
    alpha = operand(node, "alpha")
    if node.target == aten.celu.default:
        return alpha, 1.0, 1.0 / alpha
    return alpha, operand(node, "scale"), operand(node, "input_scale")


@replaces(aten.expm1.default, code="activations-written-out", detail="the runtime has exponentials, not this")
def exponentials_less_one(x: torch.Tensor) -> torch.Tensor | None:
    """Write out `exp(x) - 1` of floats."""
    return x.exp() - 1.0 if x.is_floating_point() else None


@replaces(aten.mish.default, code="activations-written-out", detail="the runtime has exponentials, not this")
def mish_written_out(x: torch.Tensor) -> torch.Tensor:
    """Write out `x * n / (n + 2)`, n = e(e + 2), e = exp(x): tanh(log(1 + e)) without a logarithm."""
    e = x.clamp(None, _SATURATED.get(x.dtype, _SATURATED_FLOAT)).exp()
    n = e * (e + 2.0)
    return x * (n / (n + 2.0))


def _times(x: torch.Tensor, factor: float) -> torch.Tensor:
    return x if factor == 1.0 else x * factor


@replaces(
    aten.reciprocal.default,
    code="reciprocals-as-quotients",
    detail="the runtime divides, and has no reciprocal",
)
def reciprocals_as_quotients(editor: GraphEditor, node: fx.Node, x: torch.Tensor) -> torch.Tensor | None:
    """Divide one by each tensor of floats that has dimensions."""
    if not x.ndim or x.dtype is not node.meta["val"].dtype:
        return None
    return editor.stored(torch.ones([1] * x.ndim, dtype=x.dtype), f"one.{x.ndim}") / x


_POWERS: Final[Mapping[float, Callable[[torch.Tensor], torch.Tensor]]] = {
    0.5: torch.sqrt,
    -0.5: torch.rsqrt,
    2.0: lambda x: x * x,
    3.0: lambda x: x * x * x,
    -1.0: torch.reciprocal,
    -2.0: lambda x: (x * x).reciprocal(),
}


@replaces(
    aten.pow.Tensor_Scalar,
    code="powers-written-out",
    detail="the runtime's makes zero of zero and of NaN, and takes magnitudes",
)
def powers_written_out(x: torch.Tensor, exponent: float) -> torch.Tensor | None:
    """Compute powers of floats as torch does, by products, quotients and roots (aten/native/cpu/PowKernel.cpp)."""
    if not x.ndim or not x.is_floating_point() or exponent not in _POWERS:
        return None
    return _POWERS[exponent](x)


@replaces(aten.clamp.Tensor, code="bounds-as-clamps", detail="the runtime clamps by numbers")
def clamps_as_bounds(editor: GraphEditor, node: fx.Node, x: torch.Tensor) -> torch.Tensor:
    """Take the larger of a tensor and its lower bounds, then the smaller of that and its upper ones."""
    low, high = operand(node, "min"), operand(node, "max")
    raised = x if low is None else x.maximum(editor.tensor(low))
    return raised if high is None else raised.minimum(editor.tensor(high))


_LARGER: Final = (aten.maximum.default, aten.max.other)


@replaces(
    *(*_LARGER, aten.minimum.default, aten.min.other),
    code="bounds-as-clamps",
    detail="the runtime clamps, and has no maximum of two tensors",
)
def bounds_as_clamps(
    editor: GraphEditor, node: fx.Node, x: torch.Tensor, other: fx.Node
) -> torch.Tensor | None:
    """Replace the larger, or smaller, of a tensor of floats and of one number by a clamp."""
    bound, value = _number(other, editor), node.meta["val"]
    same = str(x.shape) == str(value.shape) and x.is_floating_point() and x.dtype is value.dtype
    if bound is None or not same:
        return None
    return x.clamp(bound) if node.target in _LARGER else x.clamp(None, bound)


@replaces(
    *_LARGER, code="maxima-as-minima", detail="the runtime has a minimum of two tensors, and no maximum"
)
def maxima_as_minima(editor: GraphEditor, node: fx.Node, x: fx.Node, other: fx.Node) -> torch.Tensor | None:
    """Compute the larger of two tensors of floats as `-min(-x, -other)`, which is the same number."""
    parts = [of.meta["val"] for of in (x, other)]
    if node in editor.constants or any(of.dtype is not node.meta["val"].dtype or not of.ndim for of in parts):
        return None
    if not parts[0].is_floating_point():
        return None
    return -torch.minimum(-editor.tensor(x), -editor.tensor(other))


def _number(node: fx.Node, editor: GraphEditor) -> float | None:
    """The number that a tensor repeats, None where there are several, or none is known."""
    if node.target == aten.zeros_like.default:
        return 0.0
    if node.target in {aten.full_like.default, aten.full.default}:
        given = operand(node, "fill_value")
        known = isinstance(given, (int, float))
        return float(torch.tensor(given, dtype=node.meta["val"].dtype)) if known else None
    if node not in editor.constants or node.meta["val"].numel() > _MOST_READ:
        return None
    values = editor.constants.value(node)
    low = float(values.min()) if values.numel() else math.nan
    return low if low == float(values.max() if values.numel() else math.nan) else None


_MOST_READ: Final = 1 << 20
