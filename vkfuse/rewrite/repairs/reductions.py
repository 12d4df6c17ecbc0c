"""Reductions and softmaxes along dimensions that the runtime's have not.

ExecuTorch delegates a reduction without ``keepdim`` along the last dimension only (backends/vulkan/op_registry.py,
is_reduce_node_supported): the mean over a sentence's tokens would leave the delegate. The runtime counts the dimensions of
a texture, of which batches are none, and builds no softmax over channels that are stored behind one another batch by batch
(runtime/graph/ops/impl/Softmax.cpp).
"""

import operator
from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import fx

from vkfuse.program.tensors import described
from vkfuse.rewrite.arguments import argument
from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.repairs.each import replaces
from vkfuse.runtime.operators.reduce import is_across_images

aten = torch.ops.aten

_MOST = 2  # dimensions that the runtime reduces at once
_BATCHED = 4  # dimensions, the outermost a batch


@replaces(operator.getitem, code="extremes-alone", detail="no runtime has them with their places")
def extremes_alone(editor: GraphEditor, node: fx.Node) -> fx.Node | None:
    """Compute the greatest or least floats along a dimension by themselves, and their places by themselves."""
    both, place = node.args
    found = _ALONE.get(both.target) if isinstance(both, fx.Node) else None
    if not isinstance(both, fx.Node) or found is None:
        return None
    source, dim = argument(both, 0, "self"), argument(both, 1, "dim")
    keep = argument(both, 2, "keepdim", default=False)
    if not source.meta["val"].is_floating_point():
        return None
    return editor.call(found[1], source, dim, keep) if place else editor.call(found[0], source, [dim], keep)


_ALONE: Final[Mapping[Any, tuple[Any, Any]]] = {
    aten.max.dim: (aten.amax.default, aten.argmax.default),
    aten.min.dim: (aten.amin.default, aten.argmin.default),
}


@replaces(
    *(aten.sum.dim_IntList, aten.mean.dim, aten.amax.default, aten.amin.default),
    code="reductions-keep-dimensions",
    detail="the runtime's inner reductions keep them",
)
def reductions_keep_dimensions(editor: GraphEditor, node: fx.Node) -> fx.Node | None:
    """Let each reduction of floats along one or two dimensions, the last not by itself, keep them, and squeeze them."""
    if argument(node, 2, "keepdim", default=False) or node.kwargs:
        return None
    source, given = argument(node, 0, "self"), argument(node, 1, "dim")
    value = source.meta["val"]
    if not value.dtype.is_floating_point or value.ndim <= 1 or not given:
        return None
    dims = sorted(d % value.ndim for d in given)
    if len(dims) > _MOST or dims == [value.ndim - 1]:
        return None
    return editor.call(aten.squeeze.dims, editor.call(node.target, source, dims, True), dims)


@replaces(
    *(aten.softmax.int, aten.log_softmax.int),
    *(aten._softmax.default, aten._log_softmax.default),  # noqa: SLF001 - the operators' names
    code="softmax-in-rows",
    detail="the runtime's softmax is not over batches",
)
def softmaxes_in_rows(editor: GraphEditor, node: fx.Node) -> fx.Node | None:
    """Turn what each softmax over the batch, or over channels of several batches, reads and writes, into rows."""
    source, dim, *rest = node.args  # both are positional in exported programs
    value = argument(node, 0, "self").meta["val"]
    if value.ndim != _BATCHED or not is_across_images(described(value), argument(node, 1, "dim")):
        return None
    order = list(range(_BATCHED))
    order[dim], order[-1] = order[-1], order[dim]  # type: ignore[index]
    rows = editor.call(aten.permute.default, source, order)
    return editor.call(aten.permute.default, editor.call(node.target, rows, -1, *rest, **node.kwargs), order)


_SOFTMAXES: Final = (aten.softmax.int, aten.log_softmax.int)
_LONG: Final = 1024  # of 4,096 values a half-precision softmax is 0.6% off, of 16,000 15% (measured)


@replaces(
    *_SOFTMAXES, code="half-softmax-widened", detail="half-precision sums of more than 1,024 exponentials"
)
def widen_long_half_softmaxes(editor: GraphEditor, node: fx.Node) -> fx.Node | None:
    """Compute softmaxes of more than 1,024 half-precision values in float32: the shader sums in half (`sums-in-half`)."""
    source, dim = argument(node, 0, "self"), argument(node, 1, "dim")
    value, rest = source.meta["val"], node.args[2:]
    half = value.dtype is torch.float16 and node.meta["val"].dtype is torch.float16 and value.ndim
    if not half or described(value).dims[dim] <= _LONG or any(rest) or node.kwargs:
        return None
    wide = editor.call(node.target, editor.cast(source, torch.float32), dim)
    return editor.cast(wide, torch.float16)
