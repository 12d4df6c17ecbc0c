"""Reductions and softmaxes along dimensions that the runtime's have not.

ExecuTorch delegates a reduction without ``keepdim`` along the last dimension only (backends/vulkan/op_registry.py,
is_reduce_node_supported): the mean over a sentence's tokens would leave the delegate. The runtime counts the dimensions of
a texture, of which batches are none, and builds no softmax over channels that are stored behind one another batch by batch
(runtime/graph/ops/impl/Softmax.cpp). Its softmax writes zeros for what is no finite number, unless the texels lie along the
dimension (runtime/graph/ops/glsl/softmax.glsl): the logarithm of nothing would be that of one.
"""

import operator
from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any, Final

import torch
from torch import fx
from torch.utils._sympy.value_ranges import bound_sympy

from vkfuse.program.tensors import described
from vkfuse.rewrite.bounds import may_be_masked
from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.operands import operand, operands
from vkfuse.rewrite.repairs.each import RepairRule, replaces
from vkfuse.runtime.operators.reduce import is_across_images

aten = torch.ops.aten

_MOST = 2  # dimensions that the runtime reduces at once
_BATCHED = 4  # dimensions, the outermost a batch


_ALONE: Final[Mapping[Any, tuple[Callable[..., torch.Tensor], Callable[..., torch.Tensor]]]] = {
    aten.max.dim: (torch.amax, torch.argmax),
    aten.min.dim: (torch.amin, torch.argmin),
}


@replaces(*_ALONE, code="extremes-alone", detail="no runtime has them with their places")
def extremes_alone(
    node: fx.Node, which: int, x: torch.Tensor, dim: int, keepdim: bool
) -> torch.Tensor | None:
    """Compute the greatest or least floats along a dimension by themselves, and their places by themselves."""
    if not x.is_floating_point():
        return None
    extreme, place = _ALONE[node.target]
    return place(x, dim, keepdim) if which else extreme(x, [dim], keepdim)


@replaces(
    *(aten.std.dim, aten.std.correction, aten.var.dim, aten.var.correction),
    code="variances-written-out",
    detail="the runtime has them of other arguments",
)
def variances_written_out(
    editor: GraphEditor, node: fx.Node, x: torch.Tensor, dim: Sequence[int] | None
) -> torch.Tensor | None:
    """Compute variances of floats along one or two dimensions as means of squares, their roots too.

    Others of halves in float32: the CPU's kernel sums in the type of its output (portable/cpu/op_var.cpp).
    """
    out = _mean_of_squares(editor, node, x, dim)
    if out is None and x.dtype in {torch.float16, torch.bfloat16}:
        return editor.again(node, x=x.to(torch.float32)).to(x.dtype)
    return out


def _mean_of_squares(
    editor: GraphEditor, node: fx.Node, x: torch.Tensor, dim: Sequence[int] | None
) -> torch.Tensor | None:
    """Of a dimension of unknown size that is more than the correction, a sum divided by what it is less that."""
    given = operands(node)
    less = given["correction"] if "correction" in given else int(given["unbiased"])
    less = 1 if less is None else less
    if not dim or len(dim) > _MOST or x.ndim <= 1 or not x.is_floating_point():
        return None
    dims, sizes = sorted(d % x.ndim for d in dim), [x.shape[d] for d in dim]
    count = prod(sizes) if all(isinstance(size, int) for size in sizes) else 0
    open_ = bool(less) and len(dims) == 1 and not count and _least(sizes[0]) > less
    if less and count <= less and not open_:
        return None
    off = x - x.mean(dims, True)
    squares = off * off
    if open_:
        others = editor.call(operator.sub, editor.sizes(x)[dims[0]], less)
        out: torch.Tensor = aten.div.Tensor(squares.sum(dims, True), others)
    else:
        out = squares.mean(dims, True)
        out = out * (count / (count - less)) if less else out
    out = out.sqrt() if node.target in {aten.std.dim, aten.std.correction} else out
    return out if given["keepdim"] else out.squeeze(dims)


def _least(size: Any) -> Any:
    """The lower bound of a size."""
    return bound_sympy(size.node.expr, size.node.shape_env.var_to_range).lower


# Which of four dimensions become one, and which of those is reduced.
_IN_THREE: Final[Mapping[tuple[int, ...], tuple[tuple[tuple[int, ...], ...], int]]] = {
    (0,): (((0,), (1, 2), (3,)), 0),
    (0, 1): (((0, 1), (2,), (3,)), 0),
    (0, 1, 2): (((0, 1, 2), (3,)), 0),
    (1,): (((0,), (1,), (2, 3)), 1),
    (1, 2): (((0,), (1, 2), (3,)), 1),
}


@replaces(
    *(aten.sum.dim_IntList, aten.mean.dim, aten.amax.default, aten.amin.default),
    aten.linalg_vector_norm.default,
    code="reductions-in-three-dimensions",
    detail="the runtime reduces no batch of images",
)
def outermost_reduced(
    editor: GraphEditor, node: fx.Node, x: torch.Tensor, dim: Sequence[int] | None, keepdim: bool
) -> torch.Tensor | None:
    """Reduce floats along the outermost of four dimensions, or channels in a batch, as along one of three."""
    dims = tuple(sorted(d % max(1, x.ndim) for d in dim or ()))
    if node.kwargs or not x.is_floating_point() or x.ndim != _BATCHED or dims not in _IN_THREE:
        return None
    batch: Any = x.shape[0]
    if 0 not in dims and isinstance(batch, int) and batch == 1:
        return None
    groups, along = _IN_THREE[dims]
    sizes = editor.sizes(x)
    flat = x.reshape([sizes[group[0]] if len(group) == 1 else -1 for group in groups])
    reduced = editor.again(node, x=flat, dim=[along], keepdim=True)
    left = [1 if d in dims else size for d, size in enumerate(sizes)]
    return reduced.reshape(left if keepdim else [size for d, size in enumerate(sizes) if d not in dims])


@replaces(
    *(aten.sum.dim_IntList, aten.mean.dim, aten.amax.default, aten.amin.default),
    code="reductions-keep-dimensions",
    detail="the runtime's inner reductions keep them",
)
def reductions_keep_dimensions(
    editor: GraphEditor, node: fx.Node, x: torch.Tensor, dim: Sequence[int] | None, keepdim: bool
) -> torch.Tensor | None:
    """Let each reduction of floats along one or two dimensions, the last not by itself, keep them, and squeeze them."""
    if keepdim or node.kwargs or not x.is_floating_point() or x.ndim <= 1 or not dim:
        return None
    dims = sorted(d % x.ndim for d in dim)
    if len(dims) > _MOST or dims == [x.ndim - 1]:
        return None
    return editor.again(node, dim=dims, keepdim=True).squeeze(dims)


_DOWN, _DOWN_OF_NORMS = 2.0**-48, 2.0**-24  # squares are summed


@replaces(
    *(aten.sum.dim_IntList, aten.mean.dim, aten.amax.default, aten.amin.default),
    aten.linalg_vector_norm.default,
    code="row-reductions-scaled",
    detail="the runtime's are clamped to what a half holds",
)
def row_reductions_scaled(
    editor: GraphEditor, node: fx.Node, x: torch.Tensor, dim: Sequence[int] | None
) -> torch.Tensor | None:
    """Reduce rows of float32 in parts of a power of two, which changes nothing up to 1e19, of norms up to 4e9.

    A row's mean in an RMS norm is left to the norm's own shader.
    """
    down = _DOWN_OF_NORMS if node.target == aten.linalg_vector_norm.default else _DOWN
    along_rows = bool(dim) and [d % max(1, x.ndim) for d in dim or ()] == [x.ndim - 1]
    if not along_rows or node.kwargs or x.dtype is not torch.float32 or node.meta["val"].dtype is not x.dtype:
        return None
    if _is_scaled(operand(node, "x"), down, editor) or _of_norm(node):
        return None
    reduced: torch.Tensor = editor.again(node, x=x * down)
    return reduced * (1.0 / down)


def _is_scaled(source: fx.Node, down: float, editor: GraphEditor) -> bool:
    if source.target != aten.mul.Tensor:
        return False
    factor = source.args[1]
    if isinstance(factor, fx.Node) and factor in editor.constants and factor.meta["val"].numel() == 1:
        factor = editor.constants.value(factor).item()
    return bool(factor == down)


def _of_norm(node: fx.Node) -> bool:
    """Whether a reciprocal root is taken of a mean, of a sum of it and a number."""
    if node.target != aten.mean.dim:
        return False
    sums = [user for user in node.users if user.target in {aten.add.Tensor, aten.add.Scalar}]
    return any(reader.target == aten.rsqrt.default for user in (node, *sums) for reader in user.users)


@replaces(
    *(aten.softmax.int, aten.log_softmax.int),
    *(aten._softmax.default, aten._log_softmax.default),  # noqa: SLF001 - the operators' names
    code="softmax-in-rows",
    detail="the runtime's softmax is not over batches, nor over few of many",
)
def softmaxes_in_rows(editor: GraphEditor, node: fx.Node, x: torch.Tensor, dim: int) -> torch.Tensor | None:
    """Turn what each softmax over the batch, or over channels of several batches, reads and writes, into rows.

    Those over a dynamic dimension too: where it is below four, softmax.glsl looks for the largest value behind its end, in
    texels of another call or another tensor, unless its texels lie along it.
    """
    if not 1 < x.ndim <= _BATCHED or dim in {-1, x.ndim - 1}:
        return None
    if not (isinstance(_sizes(node)[dim], torch.SymInt) or is_across_images(described(x), dim)):
        return None
    order = list(range(x.ndim))
    order[dim], order[-1] = order[-1], order[dim]
    return editor.again(node, x=x.permute(order), dim=-1).permute(order)


def _sizes(node: fx.Node) -> torch.Size:
    """The sizes of what a node makes."""
    return node.meta["val"].shape  # type: ignore[no-any-return]


def _keeping_infinity(most: float) -> RepairRule:
    """Return the repair for a file in which no finite number is below minus `most`."""

    @replaces(
        *(aten.log_softmax.int, aten._log_softmax.default),  # noqa: SLF001 - the operator's name
        code="log-softmax-keeps-infinity",
        detail="the runtime's makes zeros of infinities",
    )
    def log_softmaxes_keep_infinity(
        editor: GraphEditor, node: fx.Node, x: torch.Tensor
    ) -> torch.Tensor | None:
        """Take the log softmax of finite numbers, and add what they lack: minus infinity where x has it, else zero."""
        if not x.ndim or not may_be_masked(operand(node, "x"), editor.constants):
            return None
        finite = x.clamp(-min(most, torch.finfo(x.dtype).max))
        return editor.again(node, x=finite) + (x - finite)

    return log_softmaxes_keep_infinity


log_softmaxes_keep_infinity: Final = _keeping_infinity(torch.finfo(torch.float32).max)
log_softmaxes_keep_infinity_in_half: Final = _keeping_infinity(torch.finfo(torch.float16).max)

_LONG: Final = 1024  # of 4,096 values a half-precision softmax is 0.6% off, of 16,000 15% (measured)


@replaces(
    *(aten.softmax.int, aten.log_softmax.int),
    code="half-softmax-widened",
    detail="half-precision sums of more than 1,024 exponentials",
)
def widen_long_half_softmaxes(
    editor: GraphEditor, node: fx.Node, x: torch.Tensor, dim: int, dtype: torch.dtype | None
) -> torch.Tensor | None:
    """Compute softmaxes of more than 1,024 half-precision values in float32: the shader sums in half (`sums-in-half`)."""
    if x.dtype is not torch.float16 or dtype is not None or not x.ndim or described(x).dims[dim] <= _LONG:
        return None
    return editor.again(node, x=x.to(torch.float32)).to(torch.float16)
