"""Activations of 8 bits, four packed into a word (Q8ta*.cpp)."""

from collections.abc import Iterator
from typing import Final

from vkfuse.multiples import ceil_div
from vkfuse.runtime.axes import axis_by_axis, convolved, times_a_weight
from vkfuse.runtime.axes import elementwise as each_by_itself
from vkfuse.runtime.codes import Code, Objection
from vkfuse.runtime.operands import Operands
from vkfuse.runtime.operators.convolution import one_image
from vkfuse.runtime.packing import copied, eight_bit_texels, packed
from vkfuse.runtime.record import Namer, Operator
from vkfuse.runtime.rules import one_matrix
from vkfuse.runtime.spelling import PACKED_INT8, dtype, storage, stored

_MATRIX: Final = 2
_KERNELS, _IMAGE = 3, 3  # ranks
_MANY_CHANNELS: Final = 32
_FEW_PIXELS: Final = 4096


def quantize(ops: Operands) -> Iterator[str]:
    """Q8taQuantizeDequantize.cpp: the float's storage and type."""
    source, out = ops.tensor("input"), ops.out
    if source and out and out.layout in PACKED_INT8:
        yield f"q8ta_quantize_{stored(source)}"


def dequantize(ops: Operands) -> Iterator[str]:
    """Q8taQuantizeDequantize.cpp: the float's storage and type."""
    source, out = ops.tensor("input"), ops.out
    if source and out and source.layout in PACKED_INT8:
        yield f"q8ta_dequantize_{stored(out)}"


def elementwise(operator: str) -> Namer:
    """Q8taBinary.cpp, Q8taUnary.cpp: the output's storage."""

    def names(ops: Operands) -> Iterator[str]:
        out = ops.out
        if out and out.layout in PACKED_INT8:
            yield f"{operator}_{storage(out)}"

    return names


def pixel_shuffle(ops: Operands) -> Iterator[str]:
    """Q8taPixelShuffle.cpp: one shader."""
    out = ops.out
    if out and out.layout in PACKED_INT8:
        yield "q8ta_pixel_shuffle"


def linear(operator: str) -> Namer:
    """Q8taLinear.cpp, Q8taLinearGemv.cpp, on a device with integer dot products: the type of the weight's scales."""

    def names(ops: Operands) -> Iterator[str]:
        weight, scales = ops.tensor("weight"), ops.tensor("scales")
        if weight and scales and len(weight.dims) == _MATRIX:
            texels = eight_bit_texels(weight)
            yield from packed("pack_q8_linear_weight", weight, texels, ops.device.texels(*texels))
            for name in ("weight_sums", "scales", "bias"):
                yield from copied(ops.tensor(name), "buffer")
            yield f"{operator}_{dtype(scales)}"

    return names


def convolution(ops: Operands) -> Iterator[str]:
    """Q8taConv2d.cpp: by matrix product where channels come in fours and are many, or the image is small; not a Mali."""
    source, out, groups = ops.tensor("input"), ops.out, ops.integer("groups")
    if not (source and out and groups) or min(len(source.dims), len(out.dims)) < _IMAGE:
        return
    channels, pixels = source.dims[-3] // groups, out.dims[-2] * out.dims[-1]
    by_product = channels % 4 == 0 and groups == 1 and (channels >= _MANY_CHANNELS or pixels <= _FEW_PIXELS)
    yield from by_matrix_product(ops) if by_product else direct("q8ta_conv2d")(ops)


def by_matrix_product(ops: Operands) -> Iterator[str]:
    """Q8taConv2dIm2Col.cpp: the image as a matrix, then a pointwise convolution."""
    weight = ops.tensor("weight")
    if weight and len(weight.dims) == _MATRIX:
        texels = eight_bit_texels(weight)
        yield from packed("pack_q8_linear_weight", weight, texels, ops.device.texels(*texels))
        yield "q8ta_im2col"
        yield from _convolved(ops, "q8ta_conv2d_pw")


def direct(operator: str) -> Namer:
    """Q8taConv2d.cpp, Q8taConv2dTransposed.cpp."""

    def names(ops: Operands) -> Iterator[str]:
        kernel, number = ops.integers("kernel_size"), ops.integer("groups")
        weight, source, out = ops.tensor("weight"), ops.tensor("input"), ops.out
        if kernel and len(kernel) == _MATRIX and number and weight and source and out:
            height, width = kernel
            rows = height * ceil_div(source.size(-3) // number, 4)
            texels = (width * ceil_div(out.size(-3), 4), rows)
            yield from packed("pack_q8_conv2d_weights", weight, texels, ops.device.texels(*texels))
            yield from _convolved(ops, operator)

    return names


def pointwise(ops: Operands) -> Iterator[str]:
    """Q8taConv2dPW.cpp."""
    weight, source, out = ops.tensor("weight"), ops.tensor("input"), ops.out
    if weight and source and out:
        texels = (ceil_div(out.size(-3), 4), ceil_div(source.size(-3), 4))
        yield from packed("pack_q8_conv2d_weights", weight, texels, ops.device.texels(*texels))
        yield from _convolved(ops, "q8ta_conv2d_pw")


def depthwise(ops: Operands) -> Iterator[str]:
    """Q8taConv2dDW.cpp: the weight is [height, width, channels]."""
    weight = ops.tensor("weight")
    if weight and len(weight.dims) == _KERNELS:
        height, width, channels = weight.dims
        texels = (ceil_div(channels, 4), height * ceil_div(width, 4))
        yield from packed("pack_q8_conv2d_dw_weights", weight, texels, ops.device.texels(*texels))
        yield from _convolved(ops, "q8ta_conv2d_dw")


def _convolved(ops: Operands, operator: str) -> Iterator[str]:
    """Sums and scales of the weight, a bias, and the convolution on a device with integer dot products."""
    scales = ops.tensor("scales")
    for name in ("weight_sums", "scales", "bias"):
        yield from copied(ops.tensor(name), "buffer")
    if scales:
        yield f"{operator}_{dtype(scales)}"


_LINEAR: Final = "input input_scale input_zero weight weight_sums scales output_scale output_zero bias"
_CONVOLUTION: Final = f"{_LINEAR} kernel_size stride padding dilation groups"
_TRANSPOSED: Final = f"{_LINEAR} kernel_size stride padding output_padding dilation groups"
_CONVOLUTIONS: Final = {
    "q8ta_conv2d": convolution,
    "q8ta_conv2d_im2col": by_matrix_product,
    "q8ta_conv2d_general": direct("q8ta_conv2d"),
    "q8ta_conv2d_pw": pointwise,
    "q8ta_conv2d_dw": depthwise,
}


def a_single_row(ops: Operands) -> Iterator[Objection]:
    """Q8taLinearGemv.cpp: of the first row only (measured: 1.0 off)."""
    source = ops.tensor("input")
    if source and source.rows > 1:
        yield Objection(Code.LINEAR_INPUT_BATCHED, f"input {list(source.dims)}")


OPERATORS: Final = (
    *(
        Operator(
            f"quantized_decomposed.{name}_per_tensor.default",
            "input scale zero_point",
            axes=axis_by_axis("input"),
            shaders=namer,
        )
        for name, namer in (("quantize", quantize), ("dequantize", dequantize))
    ),
    *(
        Operator(f"et_vk.{name}.default", axes=each_by_itself, shaders=elementwise(name))
        for name in ("q8ta_add", "q8ta_relu")
    ),
    Operator("et_vk.q8ta_pixel_shuffle.default", shaders=pixel_shuffle),
    *(
        Operator(
            f"et_vk.{name}.default",
            _CONVOLUTION,
            rules=(one_image,),
            departs=(Code.CONVOLUTION_BATCHED,),
            axes=convolved,
            shaders=namer,
        )
        for name, namer in _CONVOLUTIONS.items()
    ),
    Operator(
        "et_vk.q8ta_conv2d_transposed.default",
        _TRANSPOSED,
        rules=(one_image,),
        departs=(Code.CONVOLUTION_BATCHED,),
        axes=convolved,
        shaders=direct("q8ta_conv2d_transposed"),
    ),
    *(
        Operator(
            f"et_vk.{name}.default",
            _LINEAR,
            rules=(rule,),
            departs=(Code.LINEAR_INPUT_BATCHED,),
            axes=times_a_weight,
            shaders=linear(name),
        )
        for name, rule in (
            ("q8ta_linear", one_matrix(Code.LINEAR_INPUT_BATCHED)),
            ("q8ta_linear_gemv", a_single_row),
        )
    ),
)
