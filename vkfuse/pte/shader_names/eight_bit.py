"""Activations of 8 bits, four packed into a word (Q8ta*.cpp)."""

from collections.abc import Iterator
from typing import Final

from vkfuse.pte.calls import Call
from vkfuse.pte.shader_names.packing import copied, eight_bit_matrix_storage, packed
from vkfuse.pte.shader_names.spelling import PACKED_INT8, Namer, dtype, stored

_MATRIX: Final = 2


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


NAMERS: Final[dict[str, Namer]] = {
    "quantized_decomposed.quantize_per_tensor.default": quantize,
    "quantized_decomposed.dequantize_per_tensor.default": dequantize,
    "et_vk.q8ta_add.default": elementwise("q8ta_add"),
    "et_vk.q8ta_relu.default": elementwise("q8ta_relu"),
    "et_vk.q8ta_pixel_shuffle.default": pixel_shuffle,
    "et_vk.q8ta_linear.default": linear("q8ta_linear"),
    "et_vk.q8ta_linear_gemv.default": linear("q8ta_linear_gemv"),
}
