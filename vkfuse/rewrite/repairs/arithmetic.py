"""Scalar arithmetic and norms in the form that Vulkan has.

``nn.RMSNorm`` decomposes to ``aten.add.Scalar``, which the runtime has not and which splits a delegate in two;
``native_layer_norm`` needs a weight and a bias (runtime/graph/ops/impl/NativeLayerNorm.cpp).
"""

from math import prod
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram

from vkfuse.rewrite.arguments import argument
from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.repairs.each import replace_each
from vkfuse.rewrite.repairs.notes import Repair

aten = torch.ops.aten

_TENSOR_FORMS: dict[Any, Any] = {
    aten.add.Scalar: aten.add.Tensor,
    aten.sub.Scalar: aten.sub.Tensor,
    aten.mul.Scalar: aten.mul.Tensor,
    aten.div.Scalar: aten.div.Tensor,
}


_EXACT_INTEGERS = 1 << 24


def write_out_rms_norm(exported: ExportedProgram) -> tuple[ExportedProgram, tuple[Repair, ...]]:
    """RMS norms as ``x * rsqrt(mean(x^2) + eps) * weight``, https://arxiv.org/abs/1910.07467, in float32 as torch does."""
    found = [n for n in exported.graph.nodes if n.target == aten.rms_norm.default]
    detail = "mean of squares and rsqrt"
    return replace_each(exported, found, _rms_norm, code="rms-norm-written-out", detail=detail)


def _rms_norm(editor: GraphEditor, node: fx.Node) -> fx.Node:
    dimensions = list(range(-len(argument(node, 1, "normalized_shape")), 0))
    weight, eps = argument(node, 2, "weight"), argument(node, 3, "eps")
    dtype = node.meta["val"].dtype
    x = _cast(editor, editor.node(argument(node, 0, "input")), dtype, torch.float32)
    mean = editor.call(aten.mean.dim, editor.call(aten.pow.Tensor_Scalar, x, 2), dimensions, True)
    floor = torch.finfo(dtype).eps if eps is None else eps
    out = editor.call(
        aten.mul.Tensor, x, editor.call(aten.rsqrt.default, editor.call(aten.add.Tensor, mean, floor))
    )
    if weight is not None:
        out = editor.call(aten.mul.Tensor, out, editor.node(weight))
    return _cast(editor, out, torch.float32, dtype)


def _cast(editor: GraphEditor, node: fx.Node, old: torch.dtype, new: torch.dtype) -> fx.Node:
    return node if old == new else editor.call(aten._to_copy.default, node, dtype=new)  # noqa: SLF001 - the operator's name


def scalars_as_tensors(exported: ExportedProgram) -> tuple[ExportedProgram, tuple[Repair, ...]]:
    """Use the tensor form of scalar arithmetic on floats, with float scalars: the same operation as the runtime has it.

    An integer scalar would become an integer tensor, cast to float on the CPU at every call.
    """
    found = [n for n in exported.graph.nodes if _is_scalar_arithmetic(n) and _is_float(n)]
    detail = "the runtime has the tensor form only"
    return replace_each(exported, found, _tensor_form, code="scalars-as-tensors", detail=detail)


def _tensor_form(editor: GraphEditor, node: fx.Node) -> fx.Node:
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), editor.node)
    operands = [_operand(editor, node, value) for value in args]
    return editor.call(_TENSOR_FORMS.get(node.target, node.target), *operands, **kwargs)


def _operand(editor: GraphEditor, node: fx.Node, value: Any) -> Any:
    """An operand of the tensor form: a number is a float32 tensor to ExecuTorch, which would widen a single half."""
    number = _as_float(value)
    if not isinstance(number, float) or not _is_single_half(node):
        return number
    return editor.constant(torch.tensor(number, dtype=node.meta["val"].dtype), "number")


def _is_scalar_arithmetic(node: fx.Node) -> bool:
    if node.target in _TENSOR_FORMS:
        return True
    if node.target not in _TENSOR_FORMS.values():
        return False
    numbers = [a for a in node.args[:2] if isinstance(a, (int, float))]
    return any(_as_float(a) is not a for a in node.args) or (bool(numbers) and _is_single_half(node))


def _is_single_half(node: fx.Node) -> bool:
    """Whether the result is one number of less than 32 bits, without dimensions."""
    value = node.meta["val"]
    return not value.dim() and value.element_size() < torch.float32.itemsize


def _as_float(value: Any) -> Any:
    """An integer that float32 holds as a float; everything else, bools and symbolic sizes too, as it is."""
    return float(value) if type(value) is int and abs(value) <= _EXACT_INTEGERS else value


def complete_layer_norms(exported: ExportedProgram) -> tuple[ExportedProgram, tuple[Repair, ...]]:
    """Give layer norms without weight or bias a weight of ones and a bias of zeros."""
    found = [n for n in exported.graph.nodes if n.target == aten.layer_norm.default and _is_incomplete(n)]
    detail = "the runtime wants weight and bias"
    return replace_each(exported, found, _completed, code="layer-norm-completed", detail=detail)


def _is_incomplete(node: fx.Node) -> bool:
    """Without weight or bias, over sizes that are known."""
    shape = argument(node, 1, "normalized_shape")
    return None in _affine(node) and all(isinstance(size, int) for size in shape)


def _completed(editor: GraphEditor, node: fx.Node) -> fx.Node:
    shape, dtype = list(argument(node, 1, "normalized_shape")), node.meta["val"].dtype
    ones, zeros = torch.ones(shape, dtype=dtype), torch.zeros(shape, dtype=dtype)
    weight, bias = (None if p is None else editor.node(p) for p in _affine(node))
    weight = editor.constant(ones, "layer_norm.ones") if weight is None else weight
    bias = editor.constant(zeros, "layer_norm.zeros") if bias is None else bias
    source = editor.node(argument(node, 0, "input"))
    return editor.call(node.target, source, shape, weight, bias, *node.args[4:])


def layer_norms_in_rows(exported: ExportedProgram) -> tuple[ExportedProgram, tuple[Repair, ...]]:
    """Flatten what is normalized over two or three texels, or values, to a matrix.

    The runtime sums a texture's rows by halves over a work group that may be three wide where two axes are no longer
    (runtime/graph/ops/glsl/native_layer_norm_texture.glsl), but not of a matrix.
    """
    found = [n for n in exported.graph.nodes if n.target == aten.layer_norm.default and _is_narrow(n)]
    detail = "the runtime's sums of three texels need a matrix"
    return replace_each(exported, found, _in_rows, code="layer-norm-in-rows", detail=detail)


_MATRIX, _TEXEL, _THREE = 2, 4, 3


def _is_narrow(node: fx.Node) -> bool:
    """Whether a texture of it may be three texels wide and at most as deep, or deep and at most as wide."""
    dims, shape = node.meta["val"].shape, argument(node, 1, "normalized_shape")
    if len(shape) != 1 or len(dims) <= _MATRIX or not isinstance(shape[0], int):
        return False
    widths, depths = {shape[0], _texels(shape[0])}, {_MATRIX, _THREE}
    if all(isinstance(size, int) for size in dims[:-_MATRIX]):
        depths = {prod(dims[:-_MATRIX]), prod(dims[: -_MATRIX - 1]) * _texels(dims[-_MATRIX - 1])}
    return any(min(w, d) >= _MATRIX and max(w, d) == _THREE for w in widths for d in depths)


def _texels(size: int) -> int:
    return -(-size // _TEXEL)


def _in_rows(editor: GraphEditor, node: fx.Node) -> fx.Node:
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), editor.node)
    source = argument(node, 0, "input")
    rows = editor.call(aten.reshape.default, args[0], [-1, source.meta["val"].shape[-1]])
    normalized = editor.call(node.target, rows, *args[1:], **kwargs)
    return editor.call(aten.reshape.default, normalized, editor.sizes(source))


def concatenations_of_one_type(exported: ExportedProgram) -> tuple[ExportedProgram, tuple[Repair, ...]]:
    """Convert what is joined to the type of the result: neither the shaders nor the CPU kernel do (measured)."""
    found = [n for n in exported.graph.nodes if n.target == aten.cat.default and _is_mixed(n)]
    detail = "the runtime joins bytes, not values"
    return replace_each(exported, found, _promoted, code="concatenation-promoted", detail=detail)


def _is_mixed(node: fx.Node) -> bool:
    return any(part.meta["val"].dtype != node.meta["val"].dtype for part in _joined(node))


def _joined(node: fx.Node) -> list[fx.Node]:
    return list(argument(node, 0, "tensors"))


def _promoted(editor: GraphEditor, node: fx.Node) -> fx.Node:
    dtype = node.meta["val"].dtype
    same = [
        editor.node(part)
        if part.meta["val"].dtype == dtype
        else editor.call(aten.to.dtype, editor.node(part), dtype)
        for part in _joined(node)
    ]
    return editor.call(node.target, same, *node.args[1:], **node.kwargs)


def _affine(node: fx.Node) -> tuple[fx.Node | None, fx.Node | None]:
    """Weight and bias of a layer norm."""
    return argument(node, 2, "weight"), argument(node, 3, "bias")


def _is_float(node: fx.Node) -> bool:
    """Float in and out: an integer would be promoted differently by a float scalar tensor."""
    values = [i.meta.get("val") for i in node.all_input_nodes] + [node.meta["val"]]
    return all(isinstance(v, torch.Tensor) and v.dtype.is_floating_point for v in values)


def group_norms_in_four_dimensions(exported: ExportedProgram) -> tuple[ExportedProgram, tuple[Repair, ...]]:
    """Give group norms of [batch, channels, length] a last dimension of one: the runtime's is wrong without (measured)."""
    found = [
        n
        for n in exported.graph.nodes
        if n.target == aten.group_norm.default and n.meta["val"].ndim == _SEQUENCES
    ]
    detail = "the runtime's takes images"
    return replace_each(
        exported, found, _in_four_dimensions, code="group-norm-in-four-dimensions", detail=detail
    )


def _in_four_dimensions(editor: GraphEditor, node: fx.Node) -> fx.Node:
    wide = editor.call(aten.unsqueeze.default, editor.node(argument(node, 0, "input")), -1)
    args, kwargs = fx.node.map_arg((node.args[1:], node.kwargs), editor.node)
    return editor.call(aten.squeeze.dim, editor.call(aten.group_norm.default, wide, *args, **kwargs), -1)


_SEQUENCES = 3  # dimensions of [batch, channels, length]
