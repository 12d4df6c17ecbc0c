"""Activations that the runtime has no operator of, by exponentials, which it has."""

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
