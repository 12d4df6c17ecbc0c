"""Operators that the shaders compute as torch defines them: the file's arguments bound to a schema."""

from typing import Any, Final

import torch
from torch._ops import OpOverload

from vkfuse.verify.bounds import check_result
from vkfuse.verify.vulkan.call import Call, Kernel, Result

# The runtime's names (VK_REGISTER_OP in backends/vulkan/runtime/graph/ops/impl) that are ATen operators.
_ATEN: Final = """
_native_batch_norm_legit_no_training.default _to_copy.default abs.default add.Tensor addmm.default
arange.start_step avg_pool2d.default bitwise_and.Tensor bitwise_not.default bitwise_or.Tensor bmm.default cat.default
clamp.default clone.default constant_pad_nd.default convolution.default cos.default div.Tensor eq.Scalar
exp.default expand_copy.default flip.default full.default full_like.default gather.default ge.Scalar
ge.Tensor grid_sampler_2d.default gt.Scalar gt.Tensor hardshrink.default hardsigmoid.default
hardswish.default hardtanh.default index.Tensor index_select.default le.Scalar le.Tensor
leaky_relu.default linear.default log10.default logical_and.default logical_or.default lt.Scalar lt.Tensor
max_pool2d.default max_pool2d_with_indices.default
minimum.default mm.default mul.Tensor ne.Scalar neg.default ones.default
ones_like.default permute.default permute_copy.default pixel_shuffle.default relu.default relu6.default
repeat.default repeat_interleave.self_int round.default rsqrt.default scalar_tensor.default select.int
select_copy.int sigmoid.default sin.default slice.Tensor slice_copy.Tensor split_with_sizes_copy.default
sqrt.default squeeze_copy.dims sub.Tensor tan.default tanh.default unfold_copy.default
unsqueeze_copy.default upsample_bilinear2d.vec upsample_nearest2d.vec var.dim view_copy.default where.self
zeros.default zeros_like.default
"""
# Those whose definition ExecuTorch publishes in Python (backends/vulkan/custom_ops_lib.py); taken from there.
_ET_VK: Final = """
adamw_step fused_ce grid_priors linear_dW q4gsw_requant q8ta_add q8ta_conv2d q8ta_conv2d_dw q8ta_conv2d_pw
q8ta_conv2d_transposed q8ta_linear q8ta_linear_gemv q8ta_pixel_shuffle q8ta_relu
"""
AS_DEFINED: Final = tuple(f"aten.{name}" for name in _ATEN.split())
PUBLISHED: Final = tuple(f"et_vk.{name}.default" for name in _ET_VK.split())
_INDEX_ARGUMENTS: Final = {"aten.gather.default": (2,)}  # which torch takes as int64 only


def kernel_of(name: str) -> Kernel:
    """Return the kernel of an operator by torch's definition of it; AttributeError where torch has none."""
    namespace, packet, overload = name.split(".")
    operator = getattr(getattr(getattr(torch.ops, namespace), packet), overload)
    wide = _INDEX_ARGUMENTS.get(name, ())

    def run(call: Call) -> Result:
        values = [value.long() if at in wide else value for at, value in enumerate(call.args)]
        positional, keywords = bind(operator, values)
        check_result(operator, positional, keywords)
        result: Result = operator(*positional, **keywords)
        return tuple(result) if isinstance(result, list) else result

    return run


def bind(operator: OpOverload, values: list[Any]) -> tuple[list[Any], dict[str, Any]]:
    """Split values in schema order into positional and keyword arguments.

    A type, layout, device or memory format is not stored in a Vulkan graph: the output's own says it.
    """
    positional: list[Any] = []
    keywords: dict[str, Any] = {}
    for argument, value in zip(operator._schema.arguments, values, strict=False):  # noqa: SLF001 - the only way to a schema
        if not argument.kwarg_only:
            positional.append(value)
        elif value is not None:
            keywords[argument.name] = value
    return positional, keywords
