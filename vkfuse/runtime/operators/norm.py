"""Norms."""

from collections.abc import Iterator
from typing import Final

from vkfuse.multiples import ceil_div
from vkfuse.pte.enums import VkMemoryLayout
from vkfuse.runtime.axes import by_channel, elementwise
from vkfuse.runtime.codes import Code, Objection
from vkfuse.runtime.operands import Operands, Tensor
from vkfuse.runtime.packing import copied_like
from vkfuse.runtime.record import Namer, Operator, Rule
from vkfuse.runtime.spelling import dtype, stored

RMS_NORM: Final = "et_vk.rms_norm.default"
_MATRIX, _TEXEL, _THREE = 2, 4, 3
_IMAGE: Final = 4  # dimensions of [batch, channels, height, width]
_LAYOUTS: Final = (
    VkMemoryLayout.TENSOR_WIDTH_PACKED,
    VkMemoryLayout.TENSOR_HEIGHT_PACKED,
    VkMemoryLayout.TENSOR_CHANNELS_PACKED,
)


def layer_norm_has_bias(ops: Operands) -> Iterator[Objection]:
    """NativeLayerNorm.cpp: requires weight and bias to be non-None."""
    if ops.tensor("input") and (ops.value("weight") is None or ops.value("bias") is None):
        yield Objection(Code.LAYER_NORM_WITHOUT_BIAS, "weight and bias must both be there")


def group_norm_has_both(ops: Operands) -> Iterator[Objection]:
    """GroupNorm.cpp: weight and bias are constants of the file."""
    if ops.tensor("input") and (ops.value("weight") is None or ops.value("bias") is None):
        yield Objection(Code.NOT_A_CONSTANT, "weight and bias must both be there")


def layer_norm_of_rows(ops: Operands) -> Iterator[Objection]:
    """NativeLayerNorm.cpp: over the last dimension."""
    shape = ops.value("normalized_shape")
    if isinstance(shape, tuple) and len(shape) != 1:
        yield Objection(Code.LAYER_NORM_SHAPE, f"over {len(shape)} dimensions")


def layer_norm_of_halves(ops: Operands) -> Iterator[Objection]:
    """ops/glsl/native_layer_norm_texture.glsl, reduce_input: rows are summed by halves over a work group."""
    source = ops.tensor("input")
    if source is None or source.in_buffer or len(source.dims) <= _MATRIX:
        return
    known = source.layout is not VkMemoryLayout.DEFAULT_LAYOUT
    if any(_three_wide(source, layout) for layout in ({source.layout} if known else _LAYOUTS)):
        yield Objection(Code.LAYER_NORM_WIDTH, f"of {list(source.dims)}")


def _three_wide(source: Tensor, layout: VkMemoryLayout) -> bool:
    """Whether a work group may be three texels wide (ComputeGraph::create_local_wg_size).

    The sizes of a group are those for the texture's axes in descending order, permuted the wrong way round: where the
    second axis is the longest, the width has the group's second size, which is at most the second longest axis.
    """
    width, height, channels = (source.size(axis) for axis in (-1, -2, -3))
    batch = source.size(-4)
    if layout is VkMemoryLayout.TENSOR_WIDTH_PACKED:
        width = ceil_div(width, _TEXEL)
    elif layout is VkMemoryLayout.TENSOR_HEIGHT_PACKED:
        height = ceil_div(height, _TEXEL)
    else:
        channels = ceil_div(channels, _TEXEL)
    deep = batch * channels
    dynamic = source.dynamic & {*range(len(source.dims) - _MATRIX)}
    depths = {min(deep, size) for size in (_MATRIX, _THREE, deep)} if dynamic else {deep}
    return height >= _THREE and any(min(width, d) >= _MATRIX and max(width, d) == _THREE for d in depths)


def weight_for_each_column(ops: Operands) -> Iterator[Objection]:
    """RmsNorm.cpp: a weight for each column is read, whatever its shape; a number gives zeros behind it (measured)."""
    source, weight = ops.tensor("input"), ops.tensor("weight")
    if source and weight and (weight.rows, weight.dims[-1:]) != (1, source.dims[-1:]):
        yield Objection(Code.RMS_NORM_WEIGHT, f"of {list(weight.dims)} for {list(source.dims)}")


def of_images(code: Code) -> Rule:
    """Require [batch, channels, height, width]: elsewhere GroupNorm.cpp gives NaN (measured); BatchNorm.cpp fails."""

    def rule(ops: Operands) -> Iterator[Objection]:
        source = ops.tensor("input")
        if source is not None and len(source.dims) != _IMAGE:
            yield Objection(code, f"of {list(source.dims)}")

    return rule


def groups_of_a_fixed_batch(ops: Operands) -> Iterator[Objection]:
    """GroupNorm.cpp resizes means behind the dispatch that makes them: too late for a batch that grows (measured)."""
    source = ops.tensor("input")
    if source and 0 in source.dynamic:
        yield Objection(Code.NO_RESIZE, "of a dynamic batch")


def norm(shader: str, *constants: str) -> Namer:
    """NativeLayerNorm.cpp, RmsNorm.cpp: weights are stored as the input is."""

    def names(ops: Operands) -> Iterator[str]:
        source, out = ops.tensor("input"), ops.out
        if source and out and all(ops.tensor(name) for name in constants):
            for name in constants:
                yield from copied_like(ops.tensor(name), source)
            yield f"{shader}_{stored(out)}"

    return names


def group_norm(ops: Operands) -> Iterator[str]:
    """GroupNorm.cpp: one shader for means and variances, one for the rest; of textures."""
    source, out = ops.tensor("input"), ops.out
    if source and out:
        for name in ("weight", "bias"):
            yield from copied_like(ops.tensor(name), source)
        yield f"group_norm_reduce_texture_{dtype(out)}"
        yield f"group_norm_texture_{dtype(out)}"


def batch_norm(ops: Operands) -> Iterator[str]:
    """BatchNorm.cpp: of textures."""
    if ops.out:
        for name in ("weight", "bias", "running_mean", "running_var"):
            yield from copied_like(ops.tensor(name), ops.out)
        yield f"batchnorm_{dtype(ops.out)}"


OPERATORS: Final = (
    Operator(
        "aten.native_layer_norm.default",
        "input normalized_shape weight bias",
        constants="weight bias",
        rules=(layer_norm_has_bias, layer_norm_of_rows, layer_norm_of_halves),
        axes=elementwise,
        shaders=norm("native_layer_norm", "weight", "bias"),
    ),
    Operator(
        RMS_NORM,
        "input weight",
        constants="weight",
        rules=(weight_for_each_column,),
        axes=elementwise,
        shaders=norm("rms_norm", "weight"),
        fusion="rms_norm",
    ),
    Operator(
        "aten.native_group_norm.default",
        "input weight bias",
        constants="weight bias",
        rules=(group_norm_has_both, of_images(Code.GROUP_NORM_SHAPE), groups_of_a_fixed_batch),
        departs=(Code.GROUP_NORM_SHAPE,),
        axes=by_channel,
        shaders=group_norm,
    ),
    Operator(
        "aten._native_batch_norm_legit_no_training.default",
        "input weight bias running_mean running_var",
        constants="weight bias running_mean running_var",
        rules=(of_images(Code.BATCH_NORM_SHAPE),),
        axes=by_channel,
        shaders=batch_norm,
    ),
)
