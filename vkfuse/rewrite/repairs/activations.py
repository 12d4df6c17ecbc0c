"""Functions of floats that the runtime has no operator of, by those that it has: exponentials, quotients, clamps."""

import math
from typing import Final

import torch
from torch import fx

from vkfuse.rewrite.arguments import argument
from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.repairs.each import replaces

aten = torch.ops.aten

_SATURATED: Final = {torch.float16: 5.0}  # from where on n / (n + 2) is one
_SATURATED_FLOAT: Final = 20.0
_SELU: Final = (
    1.6732632423543772848170429916717,
    1.0507009873554804934193349852946,
)  # aten::selu: alpha, scale


@replaces(
    *(aten.elu.default, aten.selu.default, aten.celu.default),
    code="activations-written-out",
    detail="the runtime has exponentials, not these",
)
def exponential_units_written_out(editor: GraphEditor, node: fx.Node) -> fx.Node:
    """Write out `scale * (relu(x) + alpha * (exp(inner * min(x, 0)) - 1))` (aten::elu)."""
    alpha, scale, inner = _numbers(node)
    x = argument(node, 0, "self")
    negative = editor.call(aten.neg.default, editor.call(aten.relu.default, editor.call(aten.neg.default, x)))
    power = editor.call(aten.exp.default, _times(editor, negative, inner))
    below = _times(editor, editor.call(aten.sub.Tensor, power, 1.0), alpha * scale)
    above = _times(editor, editor.call(aten.relu.default, x), scale)
    return editor.call(aten.add.Tensor, above, below)


def _numbers(node: fx.Node) -> tuple[float, float, float]:
    """Alpha, the scale, and that of what is in the exponent."""
    if node.target == aten.selu.default:
        return (*_SELU, 1.0)
    alpha = argument(node, 1, "alpha", 1.0)
    if node.target == aten.celu.default:
        return alpha, 1.0, 1.0 / alpha
    return alpha, argument(node, 2, "scale", 1.0), argument(node, 3, "input_scale", 1.0)


@replaces(aten.mish.default, code="activations-written-out", detail="the runtime has exponentials, not this")
def mish_written_out(editor: GraphEditor, node: fx.Node) -> fx.Node:
    """Write out `x * n / (n + 2)`, n = e(e + 2), e = exp(x): tanh(log(1 + e)) without a logarithm."""
    x = argument(node, 0, "self")
    most = _SATURATED.get(x.meta["val"].dtype, _SATURATED_FLOAT)
    e = editor.call(aten.exp.default, editor.call(aten.clamp.default, x, None, most))
    n = editor.call(aten.mul.Tensor, e, editor.call(aten.add.Tensor, e, 2.0))
    share = editor.call(aten.div.Tensor, n, editor.call(aten.add.Tensor, n, 2.0))
    return editor.call(aten.mul.Tensor, x, share)


def _times(editor: GraphEditor, x: fx.Node, factor: float) -> fx.Node:
    return x if factor == 1.0 else editor.call(aten.mul.Tensor, x, factor)


@replaces(
    aten.reciprocal.default,
    code="reciprocals-as-quotients",
    detail="the runtime divides, and has no reciprocal",
)
def reciprocals_as_quotients(editor: GraphEditor, node: fx.Node) -> fx.Node | None:
    """Divide one by each tensor of floats that has dimensions."""
    x, value = argument(node, 0, "self"), node.meta["val"]
    if not value.ndim or argument(node, 0, "self").meta["val"].dtype is not value.dtype:
        return None
    one = editor.constant(torch.ones([1] * value.ndim, dtype=value.dtype), f"one.{value.ndim}")
    return editor.call(aten.div.Tensor, one, x)


_LARGER: Final = (aten.maximum.default, aten.max.other)
_FILLED: Final = {aten.full_like.default: 1, aten.full.default: 1}  # the position of the number


@replaces(
    *(*_LARGER, aten.minimum.default, aten.min.other),
    code="bounds-as-clamps",
    detail="the runtime clamps, and has no maximum of two tensors",
)
def bounds_as_clamps(editor: GraphEditor, node: fx.Node) -> fx.Node | None:
    """Replace the larger, or smaller, of a tensor of floats and of one number by a clamp."""
    x, other = argument(node, 0, "self"), argument(node, 1, "other")
    bound = _number(other, editor)
    same = str(x.meta["val"].shape) == str(node.meta["val"].shape) and x.meta["val"].is_floating_point()
    if bound is None or not same or x.meta["val"].dtype is not node.meta["val"].dtype:
        return None
    least, most = (bound, None) if node.target in _LARGER else (None, bound)
    return editor.call(aten.clamp.default, x, least, most)


def _number(node: fx.Node, editor: GraphEditor) -> float | None:
    """The number that a tensor repeats, None where there are several, or none is known."""
    if node.target == aten.zeros_like.default:
        return 0.0
    if node.target in _FILLED:
        given = node.args[_FILLED[node.target]]
        known = isinstance(given, (int, float))
        return float(torch.tensor(given, dtype=node.meta["val"].dtype)) if known else None
    if node not in editor.constants or node.meta["val"].numel() > _MOST_READ:
        return None
    values = editor.constants.value(node)
    low = float(values.min()) if values.numel() else math.nan
    return low if low == float(values.max() if values.numel() else math.nan) else None


_MOST_READ: Final = 1 << 20
