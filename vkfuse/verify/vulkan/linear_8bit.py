"""Linears with 8-bit or unsigned 4-bit weights and one scale for each output."""

import math

import torch
from torch.nn import functional

from vkfuse.pte.enums import VkStorageType
from vkfuse.runtime.codes import Code
from vkfuse.verify.halves import of_any_order
from vkfuse.verify.tensors import undefined
from vkfuse.verify.vulkan.call import Call, Kernel
from vkfuse.verify.vulkan.embedding import unpack_nibbles
from vkfuse.verify.vulkan.linear import batched, first_matrix

_HALF_MAX = torch.finfo(torch.float16).max


def linear_q8csw(call: Call) -> torch.Tensor:
    """`(input, weight int8 [N, K], scales [N], bias)`: glsl/linear_q8csw_tiled.glsl.

    Sums are scaled at the end; of halves in a buffer they are halves too, and infinite beyond those (measured), of texels
    float32.
    """
    x, weight, scales = call.tensor(0), call.tensor(1), call.tensor(2)
    bias = call.optional_tensor(3)
    rows, values = first_matrix(call, x), weight.float()
    sums = of_any_order(functional.linear(rows, values), rows, values.t())
    if call.dtype() is torch.float16 and call.storage(0) is VkStorageType.BUFFER:
        sums = torch.where(sums.abs() > _HALF_MAX, sums.sign() * torch.inf, sums)
    out = sums * scales.float().reshape(-1)
    return batched(x, out if bias is None else out + bias.float())


def conv2d_q8csw(call: Call) -> torch.Tensor:
    """`(image, weight int8 [N, K], scales [N], bias, kernel_size, stride, padding, dilation, groups)`.

    Source: impl/QuantizedConvolution.cpp; glsl/im2col.glsl, glsl/conv2d_q8csw_linear_tiled.glsl. Nothing is defined of
    other images than the first.
    """
    image, rest = call.tensor(0), call.args[1:9]
    return _of_a_batch(call, torch.ops.et_vk.conv2d_q8csw.default(image[:1].float(), *rest))


def static_convolution(name: str, groups: int) -> Kernel:
    """`(image int8, scale, zero_point, weight, ...)` of et_vk's `name`, whose argument at `groups` counts them.

    Its weight is [outputs, height, width, inputs] in a file (patterns/quantized_convolution.py), a depthwise one aside;
    ExecuTorch's definition takes inputs to come first.
    """

    def run(call: Call) -> torch.Tensor:
        image, weight, operator = call.tensor(0), call.tensor(3), getattr(torch.ops.et_vk, name).default
        if weight.dim() == 2:
            size = (*call.args[9], image.shape[1] // call.integer(groups))
            weight = weight[:, : math.prod(size)].reshape(-1, *size).permute(0, 3, 1, 2).flatten(1)
        return _of_a_batch(call, operator(image[:1], *call.args[1:3], weight, *call.args[4 : groups + 2]))

    return run


def _of_a_batch(call: Call, first: torch.Tensor) -> torch.Tensor:
    """The first of a batch of images, nothing defined in the others."""
    image = call.tensor(0)
    if image.shape[0] == 1:
        return first
    call.note(Code.CONVOLUTION_BATCHED)
    whole = undefined((image.shape[0], *first.shape[1:]), first.dtype)
    whole[0] = first[0]
    return whole


def linear_q8ta_q8csw(call: Call) -> torch.Tensor:
    """`(input, scale, zero_point, weight int8 [N, K], weight_sums [N], scales [N], bias)`.

    Source: impl/QuantizedLinear.cpp, glsl/linear_q8ta_q8csw_tiled.glsl. Integer sums are exact there as in float64 here.
    """
    x = call.tensor(0)
    quantized = _quantized(first_matrix(call, x), float(call.args[1]), call.integer(2))
    return batched(x, _scaled(call, quantized, call.optional_tensor(6)))


def q8ta_linear(call: Call) -> torch.Tensor:
    """`(input int8, scale, zero_point, weight, weight_sums, scales, output_scale, output_zero_point, bias, activation)`.

    Source: impl/Q8taLinear.cpp, impl/Q8taLinearGemv.cpp. Sums, scales and bias may be padded to whole texels.
    """
    x = call.tensor(0)
    out = _scaled(call, first_matrix(call, x), call.optional_tensor(8))
    out = out.relu() if call.args[9] == "relu" else out
    return batched(x, _quantized(out, float(call.args[6]), call.integer(7)))


def _quantized(x: torch.Tensor, scale: float, zero: int) -> torch.Tensor:
    """Bytes as floats: common.glslh, quantize_and_pack."""
    return ((x * (1.0 / scale)).round() + zero).clamp(-128, 127)


def _scaled(call: Call, quantized: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """The product of quantized inputs and the weight, in float32: its arguments stand from the second on."""
    weight, sums, scales = call.tensor(3), call.tensor(4), call.tensor(5)
    scale, zero, rows = float(call.args[1]), call.integer(2), weight.shape[0]
    dots = quantized.double() @ weight.double().t() - zero * sums.double().reshape(-1)[:rows]
    out = dots.float() * (scale * scales.float().reshape(-1)[:rows])
    return out if bias is None else out + bias.float()[:rows]


def weight_int8pack_mm(call: Call) -> torch.Tensor:
    """`(input [M, K], weight int8 [N, K], scales [N])`: impl/QuantizedLinearQCSNW.cpp."""
    x, weight, scales = call.tensor(0), call.tensor(1), call.tensor(2)
    return functional.linear(x.float(), weight.float()) * scales.float()


def linear_qcs4w(call: Call) -> torch.Tensor:
    """`(input, weight [N, K/2], scales [N])`: the high nibble is the even column; glsl/linear_qcsnw_tiled.glsl."""
    x, weight, scales = call.tensor(0), call.tensor(1), call.tensor(2)
    values = unpack_nibbles(weight, low_first=False)
    return batched(x, functional.linear(first_matrix(call, x), values) * scales.float())
