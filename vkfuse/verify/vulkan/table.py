"""Which function computes which operator of a Vulkan graph. To add one: a line here or in `definitions`."""

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Final

import torch

from vkfuse.runtime.versions import DEFAULT, find_runtime
from vkfuse.verify.kernels import dequantize, quantize
from vkfuse.verify.vulkan import (
    attention,
    binary,
    elementwise,
    embedding,
    linear,
    linear_8bit,
    products,
    reduce,
    symbolic,
)
from vkfuse.verify.vulkan.call import Kernel
from vkfuse.verify.vulkan.definitions import kernel_of

_AS_THE_SHADER: Final[dict[str, Kernel]] = {
    "aten._log_softmax.default": reduce.log_softmax,
    "aten._softmax.default": reduce.softmax,
    "aten.amax.default": reduce.reduction(torch.amax),
    "aten.amin.default": reduce.reduction(torch.amin),
    "aten.argmax.default": reduce.arg_reduction(torch.argmax),
    "aten.argmin.default": reduce.arg_reduction(torch.argmin),
    "aten.mean.dim": reduce.reduction(torch.mean),
    "aten.sum.dim_IntList": reduce.reduction(torch.sum),
    "aten.div.Tensor_mode": binary.divide_rounded,
    "aten.eq.Tensor": binary.equal,
    "aten.pow.Tensor_Scalar": binary.power_of_scalar,
    "aten.pow.Tensor_Tensor": binary.power,
    "aten.addmm.default": products.addmm,
    "aten.bmm.default": products.matmul,
    "aten.linear.default": products.linear,
    "aten.mm.default": products.matmul,
    "aten.embedding.default": embedding.embedding,
    "aten.index.Tensor": embedding.index,
    "aten.gelu.default": elementwise.gelu,
    "dim_order_ops._to_dim_order_copy.default": elementwise.same,
    "et_vk.apply_rotary_emb.default": attention.apply_rotary_emb,
    "et_vk.apply_rotary_emb_hf.default": attention.apply_rotary_emb_hf,
    "et_vk.apply_rotary_emb_interleaved.default": attention.apply_rotary_emb_interleaved,
    "conv_with_clamp.default": elementwise.conv_with_clamp,
    "et_vk.conv_with_clamp.default": elementwise.conv_with_clamp,
    "et_vk.embedding_q4gsw.default": embedding.embedding_q4gsw,
    "et_vk.linear_dq8ca_q4gsw.default": linear.linear_dq8ca_q4gsw,
    "et_vk.linear_q4gsw.default": linear.linear_q4gsw,
    "et_vk.q4gsw_linear.default": linear.linear_q4gsw,
    "et_vk.linear_q4gsw_backward.default": linear.linear_q4gsw_backward,
    "et_vk.linear_q8csw.default": linear_8bit.linear_q8csw,
    "et_vk.conv2d_q8csw.default": linear_8bit.conv2d_q8csw,
    "et_vk.linear_q8ta_q8csw.default": linear_8bit.linear_q8ta_q8csw,
    "et_vk.linear_qcs4w.default": linear_8bit.linear_qcs4w,
    "aten._weight_int8pack_mm.default": linear_8bit.weight_int8pack_mm,
    "et_vk.prepack.default": elementwise.same,
    "aten.native_group_norm.default": elementwise.native_group_norm,
    "et_vk.rms_norm.default": elementwise.rms_norm,
    "et_vk.sdpa.default": attention.sdpa,
    "llama.custom_sdpa.default": attention.custom_sdpa,
    "sdpa_with_kv_cache.default": attention.sdpa_with_kv_cache,
    "update_cache.default": attention.update_cache,
    # As on the CPU: glsl/q8ta_quantize.glsl, glsl/q8ta_dequantize.glsl.
    "quantized_decomposed.quantize_per_tensor.default": lambda call: quantize(call.args),
    "quantized_decomposed.dequantize_per_tensor.default": lambda call: dequantize(call.args),
    "torchao.choose_qparams_affine.default": linear.choose_qparams_affine,
    **symbolic.KERNELS,
}


@cache
def kernels() -> Mapping[str, Kernel]:
    """Return the functions by operator name, all others as they are defined; needs `register_operators` to have run."""
    others = find_runtime(DEFAULT).operators - _AS_THE_SHADER.keys()
    defined = {name: kernel for name in others if (kernel := kernel_of(name))}
    return MappingProxyType({**defined, **_AS_THE_SHADER})
