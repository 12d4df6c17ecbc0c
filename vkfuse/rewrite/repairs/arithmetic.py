"""Scalar arithmetic and norms in the form that Vulkan has.

``nn.RMSNorm`` decomposes to ``aten.add.Scalar``, which the runtime has not and which splits a delegate in two;
``native_layer_norm`` needs a weight and a bias (runtime/graph/ops/impl/NativeLayerNorm.cpp).
"""

from math import prod
from typing import Any

import torch
from torch import fx

from vkfuse.multiples import ceil_div
from vkfuse.rewrite.arguments import argument
from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.repairs.each import replaces

aten = torch.ops.aten

_TENSOR_FORMS: dict[Any, Any] = {
    aten.add.Scalar: aten.add.Tensor,
    aten.sub.Scalar: aten.sub.Tensor,
    aten.mul.Scalar: aten.mul.Tensor,
    aten.div.Scalar: aten.div.Tensor,
}
_EXACT_INTEGERS = 1 << 24
_LINEAR = 20  # from where on log(1 + exp(x)) is x, as floats


@replaces(aten.rms_norm.default, code="rms-norm-written-out", detail="mean of squares and rsqrt")
def write_out_rms_norm(editor: GraphEditor, node: fx.Node) -> fx.Node:
    """RMS norms as ``x * rsqrt(mean(x^2) + eps) * weight``, https://arxiv.org/abs/1910.07467, in float32 or wider."""
    dimensions = list(range(-len(argument(node, 1, "normalized_shape")), 0))
    weight, eps = argument(node, 2, "weight"), argument(node, 3, "eps")
    dtype = node.meta["val"].dtype
    wide = torch.promote_types(dtype, torch.float32)
    x = editor.cast(argument(node, 0, "input"), wide)
    mean = editor.call(aten.mean.dim, editor.call(aten.pow.Tensor_Scalar, x, 2), dimensions, True)
    shifted = editor.call(aten.add.Tensor, mean, torch.finfo(wide).eps if eps is None else eps)
    out = editor.call(aten.mul.Tensor, x, editor.call(aten.rsqrt.default, shifted))
    if weight is not None:
        out = editor.call(aten.mul.Tensor, out, weight)
    return editor.cast(out, dtype)


@replaces(
    *(*_TENSOR_FORMS, *_TENSOR_FORMS.values()),
    code="scalars-as-tensors",
    detail="the runtime has the tensor form only",
)
def scalars_as_tensors(editor: GraphEditor, node: fx.Node) -> fx.Node | None:
    """Use the tensor form of scalar arithmetic on floats, with float scalars: the same operation as the runtime has it.

    An integer scalar would become an integer tensor, cast to float on the CPU at every call.
    """
    if not _is_scalar_arithmetic(node) or not _is_float(node):
        return None
    operands = [_operand(editor, node, value) for value in node.args[:2]]
    alpha = dict(zip(("alpha",), node.args[2:], strict=False))  # keyword of the tensor forms alone
    return editor.call(_TENSOR_FORMS.get(node.target, node.target), *operands, **node.kwargs, **alpha)


def _operand(editor: GraphEditor, node: fx.Node, value: Any) -> Any:
    """An operand of the tensor form: a number is a float32 tensor to ExecuTorch, which would widen a single half."""
    number = _as_float(value)
    if not isinstance(number, float) or not _is_single_half(node):
        return number
    return editor.constant(torch.tensor(number, dtype=node.meta["val"].dtype), "number")


def _is_scalar_arithmetic(node: fx.Node) -> bool:
    if node.target in _TENSOR_FORMS:
        return True
    numbers = [a for a in node.args[:2] if isinstance(a, (int, float))]
    return any(_as_float(a) is not a for a in node.args) or (bool(numbers) and _is_single_half(node))


def _is_single_half(node: fx.Node) -> bool:
    """Whether the result is one number of less than 32 bits, without dimensions."""
    value = node.meta["val"]
    return not value.dim() and value.element_size() < torch.float32.itemsize


def _as_float(value: Any) -> Any:
    """An integer that float32 holds as a float; everything else, bools and symbolic sizes too, as it is."""
    return float(value) if type(value) is int and abs(value) <= _EXACT_INTEGERS else value


@replaces(aten.layer_norm.default, code="layer-norm-completed", detail="the runtime wants weight and bias")
def complete_layer_norms(editor: GraphEditor, node: fx.Node) -> fx.Node | None:
    """Give layer norms over known sizes without weight or bias a weight of ones and a bias of zeros."""
    shape = list(argument(node, 1, "normalized_shape"))
    if not all(isinstance(size, int) for size in shape):
        return None
    both, source = _completed(editor, node, shape, "layer_norm"), argument(node, 0, "input")
    return None if both is None else editor.call(node.target, source, shape, *both, *node.args[4:])


def _completed(
    editor: GraphEditor, node: fx.Node, shape: list[int], name: str
) -> tuple[fx.Node, fx.Node] | None:
    """Weight and bias of a norm, ones and zeros of `shape` where it has none; None where it has both."""
    weight, bias, dtype = argument(node, 2, "weight"), argument(node, 3, "bias"), node.meta["val"].dtype
    if None not in {weight, bias}:
        return None
    weight = weight or editor.constant(torch.ones(shape, dtype=dtype), f"{name}.ones")
    return weight, bias or editor.constant(torch.zeros(shape, dtype=dtype), f"{name}.zeros")


@replaces(
    aten.layer_norm.default,
    code="layer-norm-in-rows",
    detail="the runtime's sums of three texels need a matrix",
)
def layer_norms_in_rows(editor: GraphEditor, node: fx.Node) -> fx.Node | None:
    """Flatten what is normalized over two or three texels, or values, to a matrix.

    The runtime sums a texture's rows by halves over a work group that may be three wide where two axes are no longer
    (runtime/graph/ops/glsl/native_layer_norm_texture.glsl), but not of a matrix.
    """
    if not _is_narrow(node):
        return None
    source, *rest = node.args
    whole = argument(node, 0, "input")
    rows = editor.call(aten.reshape.default, source, [-1, whole.meta["val"].shape[-1]])
    normalized = editor.call(node.target, rows, *rest, **node.kwargs)
    return editor.call(aten.reshape.default, normalized, editor.sizes(whole))


_MATRIX, _TEXEL, _THREE = 2, 4, 3


def _is_narrow(node: fx.Node) -> bool:
    """Whether a texture of it may be three texels wide and at most as deep, or deep and at most as wide."""
    dims, shape = node.meta["val"].shape, argument(node, 1, "normalized_shape")
    if len(shape) != 1 or len(dims) <= _MATRIX or not isinstance(shape[0], int):
        return False
    widths, depths = {shape[0], ceil_div(shape[0], _TEXEL)}, {_MATRIX, _THREE}
    if all(isinstance(size, int) for size in dims[:-_MATRIX]):
        depths = {prod(dims[:-_MATRIX]), prod(dims[: -_MATRIX - 1]) * ceil_div(dims[-_MATRIX - 1], _TEXEL)}
    return any(min(w, d) >= _MATRIX and max(w, d) == _THREE for w in widths for d in depths)


@replaces(aten.cat.default, code="concatenation-promoted", detail="the runtime joins bytes, not values")
def concatenations_of_one_type(editor: GraphEditor, node: fx.Node) -> fx.Node | None:
    """Convert what is joined to the type of the result: neither the shaders nor the CPU kernel do (measured)."""
    parts, dtype = list(argument(node, 0, "tensors")), node.meta["val"].dtype
    if all(part.meta["val"].dtype == dtype for part in parts):
        return None
    same = [
        part if part.meta["val"].dtype == dtype else editor.call(aten.to.dtype, part, dtype) for part in parts
    ]
    return editor.call(node.target, same, *node.args[1:], **node.kwargs)


def _is_float(node: fx.Node) -> bool:
    """Float in and out: an integer would be promoted differently by a float scalar tensor."""
    values = [i.meta.get("val") for i in node.all_input_nodes] + [node.meta["val"]]
    return all(isinstance(v, torch.Tensor) and v.dtype.is_floating_point for v in values)


@replaces(aten.instance_norm.default, code="instance-norm-as-group-norm", detail="each channel a group")
def instance_norms_as_group_norms(editor: GraphEditor, node: fx.Node) -> fx.Node | None:
    """Replace each instance norm by a group norm of as many groups as there are channels."""
    source, weight, bias, _, _, own, _, eps, *_ = node.args
    if not own:
        return None
    return editor.call(aten.group_norm.default, source, node.meta["val"].shape[1], weight, bias, eps)


@replaces(aten.group_norm.default, code="group-norm-completed", detail="the runtime wants weight and bias")
def complete_group_norms(editor: GraphEditor, node: fx.Node) -> fx.Node | None:
    """Give group norms without weight or bias a weight of ones and a bias of zeros."""
    source, groups = argument(node, 0, "input"), argument(node, 1, "num_groups")
    both = _completed(editor, node, [source.meta["val"].shape[1]], "group_norm")
    return None if both is None else editor.call(node.target, source, groups, *both, *node.args[4:])


@replaces(aten.group_norm.default, code="group-norm-in-four-dimensions", detail="the runtime's takes images")
def group_norms_in_four_dimensions(editor: GraphEditor, node: fx.Node) -> fx.Node | None:
    """Give group norms of [batch, channels, length] a last dimension of one: the runtime's is wrong without (measured)."""
    if node.meta["val"].ndim != _SEQUENCES:
        return None
    wide = editor.call(aten.unsqueeze.default, argument(node, 0, "input"), -1)
    normalized = editor.call(aten.group_norm.default, wide, *node.args[1:], **node.kwargs)
    return editor.call(aten.squeeze.dim, normalized, -1)


_SEQUENCES = 3  # dimensions of [batch, channels, length]


@replaces(aten.softplus.default, code="softplus-written-out", detail="the runtime has no logarithm of 1 + x")
def write_out_softplus(editor: GraphEditor, node: fx.Node) -> fx.Node | None:
    """Compute log(1 + exp(x)) as max(x, 0) + log(1 + y), y = exp(-abs(x)); the logarithm as 2 atanh(y / (2 + y)).

    The series of atanh to the 15th power is within 2e-9 of it, relative, for s = y / (2 + y) of at most 1 / 3.
    """
    x, call = argument(node, 0, "self"), editor.call
    beta, threshold = argument(node, 1, "beta", 1), argument(node, 2, "threshold", _LINEAR)
    if beta != 1 or threshold < _LINEAR or not x.meta["val"].is_floating_point():
        return None
    y = call(aten.exp.default, call(aten.neg.default, call(aten.abs.default, x)))
    s = call(aten.div.Tensor, y, call(aten.add.Tensor, y, 2.0))
    square = call(aten.mul.Tensor, s, s)
    series = call(aten.mul.Tensor, square, 1 / 15)
    for power in (13, 11, 9, 7, 5, 3):
        series = call(aten.mul.Tensor, call(aten.add.Tensor, series, 1 / power), square)
    twice = call(aten.mul.Tensor, s, 2.0)
    logarithm = call(aten.add.Tensor, call(aten.mul.Tensor, twice, series), twice)
    return call(aten.add.Tensor, call(aten.relu.default, x), logarithm)
