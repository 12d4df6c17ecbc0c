"""Scalar arithmetic and norms in the form that Vulkan has.

``nn.RMSNorm`` decomposes to ``aten.add.Scalar``, which the runtime has not and which splits a delegate in two;
``native_layer_norm`` needs a weight and a bias (runtime/graph/ops/impl/NativeLayerNorm.cpp).
"""

from collections.abc import Sequence
from math import prod
from typing import Any, Final

import torch
from torch import fx

from vkfuse.multiples import ceil_div
from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.operands import is_dynamic, operand, operands
from vkfuse.rewrite.repairs.each import replaces
from vkfuse.rewrite.repairs.functions import log_of_one_more
from vkfuse.runtime.device import TEXTURE

aten = torch.ops.aten

_TENSOR_FORMS: dict[Any, Any] = {
    aten.add.Scalar: aten.add.Tensor,
    aten.sub.Scalar: aten.sub.Tensor,
    aten.mul.Scalar: aten.mul.Tensor,
    aten.div.Scalar: aten.div.Tensor,
}
_EXACT_INTEGERS, _SINGLE = 1 << 24, 4  # of float32, which has as many bytes
_LINEAR = 20  # from where on log(1 + exp(x)) is x, as floats


@replaces(aten.rms_norm.default, code="rms-norm-written-out", detail="mean of squares and rsqrt")
def write_out_rms_norm(
    x: torch.Tensor, normalized_shape: Sequence[int], weight: torch.Tensor | None, eps: float | None
) -> torch.Tensor:
    """RMS norms as ``x * rsqrt(mean(x^2) + eps) * weight``, https://arxiv.org/abs/1910.07467, in float32 or wider."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    mean = (wide * wide).mean(list(range(-len(normalized_shape), 0)), True)
    out = wide * (mean + (torch.finfo(wide.dtype).eps if eps is None else eps)).rsqrt()
    return (out if weight is None else out * weight).to(x.dtype)


@replaces(
    *(*_TENSOR_FORMS, *_TENSOR_FORMS.values()),
    code="scalars-as-tensors",
    detail="the runtime has the tensor form only",
)
def scalars_as_tensors(editor: GraphEditor, node: fx.Node, other: Any) -> fx.Node | None:
    """Use the tensor form of scalar arithmetic on floats, with float scalars: the same operation as the runtime has it.

    An integer scalar would become an integer tensor, cast to float on the CPU at every call; PT2E keeps scalars as
    tensors, of which ExecuTorch's fusion of RMS norms cannot read an epsilon. A number is a float32 tensor to
    ExecuTorch, which would widen a single half.
    """
    number, value = _as_float(editor, other), node.meta["val"]
    narrow = isinstance(number, (int, float)) and not value.dim() and value.element_size() < _SINGLE
    if not _is_float(node) or (node.target not in _TENSOR_FORMS and number is other and not narrow):
        return None
    if narrow and isinstance(number, float):
        number = editor.constant(torch.tensor(number, dtype=value.dtype), "number")
    alpha = dict(zip(("alpha",), node.args[2:], strict=False))  # keyword of the tensor forms alone
    return editor.call(
        _TENSOR_FORMS.get(node.target, node.target), node.args[0], number, **node.kwargs, **alpha
    )


def _as_float(editor: GraphEditor, value: Any) -> Any:
    """An integer that float32 holds, or a float32 constant without dimensions, as a float; anything else as it is."""
    if type(value) is int and abs(value) <= _EXACT_INTEGERS:
        return float(value)
    if not isinstance(value, fx.Node) or value not in editor.constants or value.meta["val"].ndim:
        return value
    single = value.meta["val"].dtype is torch.float32 and editor.constants.value(value).isfinite()
    return editor.constants.value(value).item() if single else value


@replaces(aten.layer_norm.default, code="layer-norm-completed", detail="the runtime wants weight and bias")
def complete_layer_norms(
    editor: GraphEditor, node: fx.Node, normalized_shape: Sequence[int]
) -> torch.Tensor | None:
    """Give layer norms over known sizes without weight or bias a weight of ones and a bias of zeros."""
    known = all(isinstance(size, int) for size in normalized_shape)
    return _completed(editor, node, normalized_shape, "layer_norm") if known else None


def _completed(editor: GraphEditor, node: fx.Node, shape: Sequence[int], name: str) -> torch.Tensor | None:
    """A norm with ones and zeros of `shape` where it has no weight or bias; None where it has both."""
    weight, bias, dtype = operand(node, "weight"), operand(node, "bias"), node.meta["val"].dtype
    if None not in {weight, bias}:
        return None
    weight = weight or editor.constant(torch.ones(shape, dtype=dtype), f"{name}.ones")
    bias = bias or editor.constant(torch.zeros(shape, dtype=dtype), f"{name}.zeros")
    return editor.again(node, weight=weight, bias=bias)


@replaces(
    aten.layer_norm.default,
    code="layer-norm-in-rows",
    detail="the runtime's sums of three texels need a matrix",
)
def layer_norms_in_rows(
    editor: GraphEditor, node: fx.Node, x: torch.Tensor, normalized_shape: Sequence[int]
) -> torch.Tensor | None:
    """Flatten what is normalized over two or three texels, or values, to a matrix.

    The runtime sums a texture's rows by halves over a work group that may be three wide where two axes are no longer
    (runtime/graph/ops/glsl/native_layer_norm_texture.glsl), but not of a matrix.
    """
    if len(normalized_shape) != 1 or not _is_narrow(x.shape):
        return None
    return editor.again(node, x=x.reshape([-1, x.shape[-1]])).reshape(editor.sizes(x))


_MATRIX, _TEXEL, _THREE = 2, 4, 3


def _is_narrow(dims: torch.Size) -> bool:
    """Whether a texture of it may be three texels wide and at most as deep, or deep and at most as wide."""
    if len(dims) <= _MATRIX or not isinstance(dims[-1], int):
        return False
    widths, depths = {dims[-1], ceil_div(dims[-1], _TEXEL)}, {_MATRIX, _THREE}
    if all(isinstance(size, int) for size in dims[:-_MATRIX]):
        depths = {prod(dims[:-_MATRIX]), prod(dims[: -_MATRIX - 1]) * ceil_div(dims[-_MATRIX - 1], _TEXEL)}
    return any(min(w, d) >= _MATRIX and max(w, d) == _THREE for w in widths for d in depths)


@replaces(
    *(aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor),
    *(aten.minimum.default, aten.maximum.default, aten.where.self),
    code="constants-promoted",
    detail="converted on the CPU with each call otherwise",
)
def constants_of_one_type(editor: GraphEditor, node: fx.Node) -> torch.Tensor | None:
    """Store whole numbers beside floats, as a buffer of integers that scales has them, as the floats they become."""
    dtype, given = node.meta["val"].dtype, operands(node)
    if not dtype.is_floating_point or node in editor.constants:
        return None
    known = {name: of for name, of in given.items() if name != "condition" and of in editor.constants}
    whole = {
        name: editor.constants.value(of)
        for name, of in known.items()
        if not of.meta["val"].is_floating_point() and of.meta["val"].nbytes <= _MOST_PROMOTED
    }
    stored = {name: editor.stored(of.to(dtype), f"{node.name}.{name}") for name, of in whole.items()}
    return editor.again(node, **stored) if stored else None


_MOST_PROMOTED: Final = 1 << 16  # bytes of a constant that may have more of them


@replaces(aten.cat.default, code="concatenation-promoted", detail="the runtime joins bytes, not values")
def concatenations_of_one_type(
    editor: GraphEditor, node: fx.Node, tensors: Sequence[torch.Tensor]
) -> torch.Tensor | None:
    """Convert what is joined to the type of the result: neither the shaders nor the CPU kernel do (measured).

    What is empty is left out: a file with an empty constant does not load (measured).
    """
    dtype = node.meta["val"].dtype
    parts = [part for part in tensors if all(not isinstance(size, int) or size for size in part.shape)]
    if not parts or (len(parts) == len(tensors) and all(part.dtype == dtype for part in parts)):
        return None
    joined = [part.to(dtype) for part in parts]
    return editor.again(node, tensors=joined) if len(joined) > 1 else joined[0]


def _is_float(node: fx.Node) -> bool:
    """Float in and out, of one type: an integer would be promoted differently by a float scalar tensor."""
    values = [i.meta.get("val") for i in node.all_input_nodes] + [node.meta["val"]]
    kinds = [v.dtype for v in values if isinstance(v, torch.Tensor) and v.dtype.is_floating_point]
    return len(kinds) == len(values) and kinds[0] == kinds[-1]


@replaces(aten.instance_norm.default, code="instance-norm-as-group-norm", detail="each channel a group")
def instance_norms_as_group_norms(
    x: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None, use_input_stats: bool, eps: float
) -> torch.Tensor | None:
    """Replace each instance norm by a group norm of as many groups as there are channels."""
    return torch.group_norm(x, x.shape[1], weight, bias, eps) if use_input_stats else None


@replaces(aten.group_norm.default, code="group-norm-completed", detail="the runtime wants weight and bias")
def complete_group_norms(editor: GraphEditor, node: fx.Node, x: torch.Tensor) -> torch.Tensor | None:
    """Give group norms without weight or bias a weight of ones and a bias of zeros."""
    return _completed(editor, node, [x.shape[1]], "group_norm")


@replaces(
    aten.group_norm.default,
    code="group-norm-written-out",
    detail="the runtime does not resize those of a batch",
)
def write_out_group_norms(
    editor: GraphEditor, x: torch.Tensor, num_groups: int, weight: fx.Node, bias: fx.Node, eps: float
) -> torch.Tensor | None:
    """Write out group norms of a dynamic batch, of known sizes else, with a group a row."""
    _, channels, *sizes = x.shape
    known = all(of in editor.constants for of in (weight, bias)) and x.dtype == torch.float32
    fit = all(isinstance(n, int) for n in x.shape[1:]) and prod(x.shape[1:]) <= num_groups * TEXTURE[0]
    if not (known and is_dynamic(x) and fit):
        return None
    scale, shift = (
        editor.stored(editor.constants.value(of).reshape(-1, *[1] * len(sizes)), f"group_norm.{name}")
        for name, of in (("scale", weight), ("shift", bias))
    )
    rows = x.reshape([-1, channels * prod(sizes) // num_groups])
    centered = rows - rows.mean([-1], True)
    normed = centered * (centered.pow(2).mean([-1], True) + eps).rsqrt()
    return normed.reshape([-1, channels, *sizes]) * scale + shift


@replaces(aten.group_norm.default, code="group-norm-in-four-dimensions", detail="the runtime's takes images")
def group_norms_in_four_dimensions(
    editor: GraphEditor, node: fx.Node, x: torch.Tensor
) -> torch.Tensor | None:
    """Give group norms of [batch, channels, ...] last dimensions of one: the runtime's is wrong without (measured)."""
    missing = _IMAGES - x.ndim
    if missing <= 0:
        return None
    for _ in range(missing):
        x = x.unsqueeze(-1)
    image = editor.again(node, x=x)
    for _ in range(missing):
        image = image.squeeze(-1)
    return image


_IMAGES = 4  # dimensions of [batch, channels, height, width]


@replaces(aten.bilinear.default, code="bilinear-written-out", detail="no library has a kernel of it")
def write_out_bilinear(
    editor: GraphEditor,
    input1: torch.Tensor,
    input2: torch.Tensor,
    weight: fx.Node,
    bias: torch.Tensor | None,
) -> torch.Tensor | None:
    """Write out `x W_o y` for each output o: a linear of x, whose rows, one for each o, are multiplied by y and summed."""
    if weight not in editor.constants:
        return None
    turned = editor.constants.value(weight).transpose(1, 2)  # [out, of y, of x]
    out, _, columns = turned.shape
    rows = editor.stored(turned.reshape(-1, columns), "bilinear.rows")
    products = torch.nn.functional.linear(input1.reshape([-1, columns]), rows).reshape(
        [-1, out, input2.shape[-1]]
    )
    total = (products * input2.reshape([-1, 1, input2.shape[-1]])).sum([-1])
    return (total if bias is None else total + bias).reshape([*editor.sizes(input1)[:-1], out])


@replaces(
    aten.cosine_similarity.default,
    code="cosine-similarity-written-out",
    detail="lengths are bounded by a number, and nothing is expanded",
)
def write_out_cosine_similarity(
    x1: torch.Tensor, x2: torch.Tensor, dim: int, eps: float
) -> torch.Tensor | None:
    """Sum the products of vectors, each divided by its length, or by `eps` where that is more, as torch does it.

    Decomposed, the bound is a tensor, and vectors are expanded to each other's number.
    """
    if x1.ndim != x2.ndim and not -min(x1.ndim, x2.ndim) <= dim < 0:
        return None
    one, other = (x / aten.linalg_vector_norm(x, 2, [dim], True).clamp(eps) for x in (x1, x2))
    total: torch.Tensor = (one * other).sum([dim])
    return total


@replaces(aten.softplus.default, code="softplus-written-out", detail="the runtime has no logarithm of 1 + x")
def write_out_softplus(x: torch.Tensor, beta: float, threshold: float) -> torch.Tensor | None:
    """Compute log(1 + exp(x)) as max(x, 0) + log(1 + exp(-abs(x)))."""
    if beta != 1 or threshold < _LINEAR or not x.is_floating_point():
        return None
    return x.relu() + log_of_one_more((-x.abs()).exp())
