"""Softmax, sums, extrema and variances."""

from collections.abc import Iterator
from typing import Final

from vkfuse.runtime.axes import axis_by_axis, without
from vkfuse.runtime.codes import Code, Objection
from vkfuse.runtime.operands import Operands, Tensor
from vkfuse.runtime.record import Namer, Operator
from vkfuse.runtime.spelling import by_storage_and_dtype, dtype, stored

_TWO: Final = 2
_CHANNELS, _BATCH = 2, 3  # axes of a texture, counted from the width


def reduces_axes_of_a_texture(ops: Operands) -> Iterator[Objection]:
    """Reduce.cpp: one or two axes, not the batch, nor channels in a batch, nor (of two) the packed one (measured)."""
    source, out = ops.tensor("self"), ops.out
    problem = _unreduced(ops, source, out) if source and out else ""
    if problem:
        yield Objection(Code.REDUCE_DIMS, problem)


def _unreduced(ops: Operands, source: Tensor, out: Tensor) -> str:
    """Say why a reduction is not built, nothing where it is."""
    dims, rank = ops.integers("dim"), len(source.dims)
    if dims is None:
        return "all dimensions of a tensor of several" if ops.value("dim") is None and rank != 1 else ""
    if len(dims) not in {1, _TWO}:
        return f"{len(dims)} dimensions, not one or two"
    if dims in ((-1,), (rank - 1,)) and source.in_buffer:
        return ""
    if source.in_buffer or out.in_buffer:
        return "a buffer, of which only rows are reduced"
    axes = {(rank - 1 - dim) % max(1, rank) for dim in dims}
    packed = {int(source.layout), int(out.layout)} if len(dims) > 1 else set()
    batched = {_BATCH, _CHANNELS} if rank > _BATCH and source.dims[0] > 1 else {_BATCH}
    return f"dimensions {list(dims)} of {list(source.dims)}" if (packed | batched) & axes else ""


def softmax_within_an_image(ops: Operands) -> Iterator[Objection]:
    """Softmax.cpp: of four dimensions not along the batch, nor in a batch along the channels; buffers likewise."""
    source, dim = ops.tensor("self"), ops.integer("dim")
    if source is not None and dim is not None and is_across_images(source, dim):
        yield Objection(Code.SOFTMAX_DIM, f"dimension {dim} of {list(source.dims)}")


def is_across_images(source: Tensor, dim: int) -> bool:
    """Whether a dimension of a tensor is the batch, or the channels of several images."""
    if len(source.dims) <= _BATCH:
        return False
    axis = (len(source.dims) - 1 - dim) % len(source.dims)
    return axis == _BATCH or (axis == _CHANNELS and source.dims[0] > 1)


def reduces_rows_of_a_buffer(ops: Operands) -> Iterator[Objection]:
    """ArgReduce.cpp: the last dimension of a buffer."""
    source = ops.tensor("self")
    if source is None:
        return
    dim = 0 if ops.value("dim") is None else ops.integer("dim")
    last = len(source.dims) - 1
    if not source.in_buffer or (dim is not None and dim % max(1, len(source.dims)) != last):
        detail = f"dimension {dim} of {list(source.dims)}"
        yield Objection(Code.ARG_REDUCE, detail)


def sums_as_torch(ops: Operands) -> bool:
    """Reduce.cpp: sums along rows of a buffer are clamped, NaN too (glsl/convert.glslh); others are not."""
    source, dims = ops.tensor("self"), ops.integers("dim")
    return source is not None and not (source.in_buffer and dims in ((-1,), (len(source.dims) - 1,)))


def reduction(shader: str) -> Namer:
    """Reduce.cpp: rows of a buffer, or one or two dimensions of a texture."""

    def names(ops: Operands) -> Iterator[str]:
        source, out = ops.tensor("self"), ops.out
        dims = ops.integers("dim") if ops.value("dim") is not None else (-1,)
        if source is None or out is None or dims is None:
            return
        if dims in ((-1,), (len(source.dims) - 1,)) and source.in_buffer:
            yield f"{shader}_per_row_{stored(source)}"
        elif len(dims) in {1, _TWO} and not (source.in_buffer or out.in_buffer):
            yield f"{shader}{'2d' if len(dims) == _TWO else ''}_{dtype(out)}"

    return names


def arg_reduction(shader: str) -> Namer:
    """ArgReduce.cpp: rows of a buffer."""

    def names(ops: Operands) -> Iterator[str]:
        source = ops.tensor("self")
        if source and source.in_buffer:
            yield f"{shader}_per_row_{stored(source)}"

    return names


_REDUCTIONS: Final = {
    "aten.sum.dim_IntList": "sum",
    "aten.mean.dim": "mean",
    "aten.amax.default": "amax",
    "aten.amin.default": "amin",
}
OPERATORS: Final = (
    *(
        Operator(
            name,
            "self dim",
            rules=(reduces_axes_of_a_texture,),
            departs=(Code.ROW_REDUCTION_CLAMPED, Code.NOT_FINITE),
            carry=sums_as_torch if shader in {"sum", "mean"} else None,
            axes=without(),
            shaders=reduction(shader),
        )
        for name, shader in _REDUCTIONS.items()
    ),
    *(
        Operator(
            f"aten.{name}.default",
            "self dim",
            rules=(reduces_rows_of_a_buffer,),
            departs=(Code.NOT_FINITE,),
            axes=without(),
            shaders=arg_reduction(name),
            integers=True,
        )
        for name in ("argmax", "argmin")
    ),
    *(
        Operator(
            f"aten._{name}.default",
            "self dim",
            rules=(softmax_within_an_image,),
            departs=(Code.MASKED_ROW_ZERO, Code.SHORT_SOFTMAX_FROM_ZERO, Code.SUMS_IN_HALF, Code.NOT_FINITE),
            axes=axis_by_axis("self"),
            shaders=by_storage_and_dtype(name),
        )
        for name in ("softmax", "log_softmax")
    ),
    Operator("aten.var.dim", "self dim", axes=without(), shaders=by_storage_and_dtype("var")),
)
