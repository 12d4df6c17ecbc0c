"""Activations of 8 bits, four packed into a word (Q8ta*.cpp)."""

from collections.abc import Iterator
from typing import Final

from vkfuse.pte.calls import Call
from vkfuse.pte.shader_names.packing import copied, eight_bit_matrix_storage, packed, texels
from vkfuse.pte.shader_names.spelling import PACKED_INT8, Namer, dtype, size, stored

_MATRIX: Final = 2
_KERNELS, _IMAGE = 3, 3  # ranks
_MANY_CHANNELS: Final = 32
_FEW_PIXELS: Final = 4096


def quantize(call: Call) -> Iterator[str]:
    """Q8taQuantizeDequantize.cpp: the float's storage and type."""
    source, out = call.tensor(0), call.tensor(-1)
    if source and out and out.layout in PACKED_INT8:
        yield f"q8ta_quantize_{stored(call.site, source)}"


def dequantize(call: Call) -> Iterator[str]:
    """Q8taQuantizeDequantize.cpp: the float's storage and type."""
    source, out = call.tensor(0), call.tensor(-1)
    if source and out and source.layout in PACKED_INT8:
        yield f"q8ta_dequantize_{stored(call.site, out)}"


def elementwise(operator: str) -> Namer:
    """Q8taBinary.cpp, Q8taUnary.cpp: the output's storage."""

    def names(call: Call) -> Iterator[str]:
        out = call.tensor(-1)
        if out and out.layout in PACKED_INT8:
            yield f"{operator}_{call.site.storage_suffix(out)}"

    return names


def pixel_shuffle(call: Call) -> Iterator[str]:
    """Q8taPixelShuffle.cpp: one shader."""
    out = call.tensor(-1)
    if out and out.layout in PACKED_INT8:
        yield "q8ta_pixel_shuffle"


def linear(operator: str) -> Namer:
    """Q8taLinear.cpp, Q8taLinearGemv.cpp, on a device with integer dot products: the type of the weight's scales."""

    def names(call: Call) -> Iterator[str]:
        weight, scales = call.tensor(3), call.tensor(5)
        if weight and scales and len(weight.dims) == _MATRIX:
            yield from packed("pack_q8_linear_weight", eight_bit_matrix_storage(weight))
            for position in (4, 5, 8):
                yield from copied(call.tensor(position), "buffer")
            yield f"{operator}_{dtype(scales)}"

    return names


def convolution(call: Call) -> Iterator[str]:
    """Q8taConv2d.cpp: by matrix product where channels come in fours and are many, or the image is small; not a Mali."""
    source, out, groups = call.tensor(0), call.tensor(15), call.integer(13)
    if not (source and out and groups) or min(len(source.dims), len(out.dims)) < _IMAGE:
        return
    channels, pixels = source.dims[-3] // groups, out.dims[-2] * out.dims[-1]
    by_product = channels % 4 == 0 and groups == 1 and (channels >= _MANY_CHANNELS or pixels <= _FEW_PIXELS)
    yield from by_matrix_product(call) if by_product else direct("q8ta_conv2d", groups=13)(call)


def by_matrix_product(call: Call) -> Iterator[str]:
    """Q8taConv2dIm2Col.cpp: the image as a matrix, then a pointwise convolution."""
    weight = call.tensor(3)
    if weight and len(weight.dims) == _MATRIX:
        yield from packed("pack_q8_linear_weight", eight_bit_matrix_storage(weight))
        yield "q8ta_im2col"
        yield from _convolved(call, "q8ta_conv2d_pw")


def direct(operator: str, groups: int) -> Namer:
    """Q8taConv2d.cpp, Q8taConv2dTransposed.cpp; `groups` is the position of their number."""

    def names(call: Call) -> Iterator[str]:
        kernel, number, source, out = call.integers(9), call.integer(groups), call.tensor(0), call.tensor(-1)
        if kernel and len(kernel) == _MATRIX and number and source and out:
            height, width = kernel
            columns = width * -(-size(out, -3) // 4)
            storage = texels(columns, height * -(-(size(source, -3) // number) // 4))
            yield from packed("pack_q8_conv2d_weights", storage)
            yield from _convolved(call, operator)

    return names


def pointwise(call: Call) -> Iterator[str]:
    """Q8taConv2dPW.cpp."""
    source, out = call.tensor(0), call.tensor(-1)
    if source and out:
        storage = texels(-(-size(out, -3) // 4), -(-size(source, -3) // 4))
        yield from packed("pack_q8_conv2d_weights", storage)
        yield from _convolved(call, "q8ta_conv2d_pw")


def depthwise(call: Call) -> Iterator[str]:
    """Q8taConv2dDW.cpp: the weight is [height, width, channels]."""
    weight = call.tensor(3)
    if weight and len(weight.dims) == _KERNELS:
        height, width, channels = weight.dims
        storage = texels(-(-channels // 4), height * -(-width // 4))
        yield from packed("pack_q8_conv2d_dw_weights", storage)
        yield from _convolved(call, "q8ta_conv2d_dw")


def _convolved(call: Call, operator: str) -> Iterator[str]:
    """Sums and scales of the weight, a bias, and the convolution on a device with integer dot products."""
    scales = call.tensor(5)
    for position in (4, 5, 8):
        yield from copied(call.tensor(position), "buffer")
    if scales:
        yield f"{operator}_{dtype(scales)}"


NAMERS: Final[dict[str, Namer]] = {
    "quantized_decomposed.quantize_per_tensor.default": quantize,
    "quantized_decomposed.dequantize_per_tensor.default": dequantize,
    "et_vk.q8ta_add.default": elementwise("q8ta_add"),
    "et_vk.q8ta_relu.default": elementwise("q8ta_relu"),
    "et_vk.q8ta_pixel_shuffle.default": pixel_shuffle,
    "et_vk.q8ta_conv2d.default": convolution,
    "et_vk.q8ta_conv2d_im2col.default": by_matrix_product,
    "et_vk.q8ta_conv2d_general.default": direct("q8ta_conv2d", groups=13),
    "et_vk.q8ta_conv2d_transposed.default": direct("q8ta_conv2d_transposed", groups=14),
    "et_vk.q8ta_conv2d_pw.default": pointwise,
    "et_vk.q8ta_conv2d_dw.default": depthwise,
    "et_vk.q8ta_linear.default": linear("q8ta_linear"),
    "et_vk.q8ta_linear_gemv.default": linear("q8ta_linear_gemv"),
}
