"""Which function computes which operator of a Vulkan graph: as the shader does, or else as torch defines it."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from types import MappingProxyType
from typing import Any, Final

import torch
from torch._ops import OpOverload

from vkfuse.pte.enums import VkStorageType
from vkfuse.runtime.versions import DEFAULT, find_runtime
from vkfuse.verify.bounds import bind, check_result
from vkfuse.verify.kernels import dequantize, quantize
from vkfuse.verify.vulkan import (
    attention,
    elementwise,
    embedding,
    linear,
    linear_8bit,
    reduce,
    symbolic,
)
from vkfuse.verify.vulkan.call import Call, Kernel, Result

_AS_THE_SHADER: Final[dict[str, Kernel]] = {
    "aten._log_softmax.default": reduce.log_softmax,
    "aten._softmax.default": reduce.softmax,
    "aten.amax.default": reduce.reduction(torch.amax),
    "aten.amin.default": reduce.reduction(torch.amin),
    "aten.argmax.default": reduce.arg_reduction(torch.argmax),
    "aten.argmin.default": reduce.arg_reduction(torch.argmin),
    "aten.mean.dim": reduce.reduction(torch.mean),
    "aten.sum.dim_IntList": reduce.reduction(torch.sum),
    "aten.cos.default": elementwise.sine(torch.cos),
    "aten.sin.default": elementwise.sine(torch.sin),
    "aten.tan.default": elementwise.sine(torch.tan),
    "aten.hardswish.default": elementwise.hardswish,
    "aten.minimum.default": elementwise.minimum,
    "aten.div.Tensor_mode": elementwise.divide_rounded,
    "aten.eq.Tensor": elementwise.equal,
    "aten.pow.Tensor_Scalar": elementwise.power_of_scalar,
    "aten.pow.Tensor_Tensor": elementwise.power,
    "aten.addmm.default": linear.addmm,
    "aten.bmm.default": linear.matmul,
    "aten.linear.default": linear.linear,
    "aten.mm.default": linear.matmul,
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
    **{
        f"et_vk.{name}.default": linear_8bit.static_convolution(name, groups)
        for name, groups in (
            ("q8ta_conv2d", 13),
            ("q8ta_conv2d_dw", 13),
            ("q8ta_conv2d_pw", 13),
            ("q8ta_conv2d_transposed", 14),
        )
    },
    "et_vk.q8ta_linear.default": linear_8bit.q8ta_linear,
    "et_vk.q8ta_linear_gemv.default": linear_8bit.q8ta_linear,
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
_LOWEST: Final = -math.inf
_MAX_POOLS: Final = ("aten.max_pool2d.default", "aten.max_pool2d_with_indices.default")
# What NaN is as good as: GLSL leaves it open which operand of min, max and clamp wins (measured).
_NAN_AS: Final = {
    "aten.clamp.default": _LOWEST,
    "aten.hardsigmoid.default": _LOWEST,
    "aten.hardtanh.default": _LOWEST,
    **dict.fromkeys(_MAX_POOLS, _LOWEST),
    "aten.relu.default": _LOWEST,
    "aten.relu6.default": _LOWEST,
    "aten.tanh.default": _LOWEST,
    "aten.pow.Tensor_Scalar": 0.0,
}
_INDEX_ARGUMENTS: Final = {"aten.gather.default": (2,)}  # which torch takes as int64 only
# Whose numbers are float32 (impl/BinaryOp.cpp, UnaryOp.cpp, Full.cpp); in buffers the first two convert them to integers
# (glsl/binary_op_buffer.glsl: T(alpha)).
_IN_FLOATS: Final = {
    "aten.add.Tensor": False,
    "aten.sub.Tensor": False,
    "aten.clamp.default": True,
    "aten.full.default": True,
    "aten.full_like.default": True,
}


# Stock files hand float32 rows of a lookup to layers in half precision (measured).
_BESIDE_EACH_OTHER: Final = (
    *("aten.addmm.default", "aten.bmm.default", "aten.linear.default", "aten.mm.default"),
    *("aten.convolution.default", "conv_with_clamp.default", "et_vk.conv_with_clamp.default"),
    *("aten.native_group_norm.default", "aten.native_layer_norm.default"),
)

# Kernels of several calls by one weight, which is unpacked once for all of them.
TOGETHER: Final[Mapping[str, Callable[[Sequence[Call]], Sequence[torch.Tensor]]]] = {
    "et_vk.linear_dq8ca_q4gsw.default": linear.linears_dq8ca_q4gsw,
    "et_vk.linear_q4gsw.default": linear.linears_q4gsw,
    "et_vk.q4gsw_linear.default": linear.linears_q4gsw,
}


@cache
def kernels() -> Mapping[str, Kernel]:
    """Return the functions by operator name, all others as they are defined; needs `register_operators` to have run."""
    others = find_runtime(DEFAULT).operators - _AS_THE_SHADER.keys()
    defined = {name: kernel for name in others if (kernel := _as_defined(name))}
    known = {**defined, **_AS_THE_SHADER}
    losing = {name: elementwise.nan_as(value, known[name]) for name, value in _NAN_AS.items()}
    pools = {name: elementwise.largest_of_windows(losing[name]) for name in _MAX_POOLS}
    mixed = {name: elementwise.in_widest(known[name]) for name in _BESIDE_EACH_OTHER}
    return MappingProxyType({**known, **losing, **pools, **mixed})


def _as_defined(name: str) -> Kernel | None:
    """Return the kernel of an operator by its definition, ATen's or that which ExecuTorch publishes; None without one."""
    operator: Any = torch.ops
    for part in name.split("."):
        operator = getattr(operator, part, None)
    if not isinstance(operator, OpOverload):
        return None
    kernel = _of(operator, name)
    return _with_floats(kernel, in_buffers=_IN_FLOATS[name]) if name in _IN_FLOATS else kernel


def _with_floats(defined: Kernel, *, in_buffers: bool) -> Kernel:
    def run(call: Call) -> Result:
        floats = in_buffers or call.storage(0) is not VkStorageType.BUFFER
        return elementwise.in_floats(call, defined, tensors=floats)

    return run


def _of(operator: OpOverload, name: str) -> Kernel:
    wide = _INDEX_ARGUMENTS.get(name, ())

    def run(call: Call) -> Result:
        # A type, layout, device or memory format is not stored in a Vulkan graph: the output's own says it.
        values = [value.long() if at in wide else value for at, value in enumerate(call.args)]
        positional, keywords = bind(operator, values)
        check_result(operator, positional, keywords)
        result: Result = operator(*positional, **keywords)
        return tuple(result) if isinstance(result, list) else result

    return run
