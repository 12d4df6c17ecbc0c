"""Elementwise and row operators whose shader is not torch's default of that name."""

import torch
from torch.nn import functional

from vkfuse.runtime.codes import Code
from vkfuse.verify.vulkan.call import Call


def gelu(call: Call) -> torch.Tensor:
    """`(input, approximate)`: always the tanh form; impl/UnaryOp.cpp."""
    if call.args[1] != "tanh":
        call.note(Code.GELU_BY_TANH)
    return functional.gelu(call.tensor(0), approximate="tanh")


def same(call: Call) -> torch.Tensor:
    """`(input, ...)`: a copy, converted to the output's type, or of a constant to the GPU."""
    return call.tensor(0)


def rms_norm(call: Call) -> torch.Tensor:
    """`(input, weight, eps)`: impl/RmsNorm.cpp."""
    x, weight = call.tensor(0).float(), call.tensor(1).float()
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + float(call.args[2])) * weight


def native_group_norm(call: Call) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """`(input, weight, bias, N, C, HxW, group, eps)`: of images; NaN for anything else (measured)."""
    out, mean, rstd = torch.native_group_norm(*call.args)
    if out.dim() == 4:
        return out, mean, rstd
    call.note(Code.GROUP_NORM_SHAPE)
    return out * torch.nan, mean, rstd


def conv_with_clamp(call: Call) -> torch.Tensor:
    """`(*convolution, output_min, output_max)`: impl/Convolution.cpp."""
    out: torch.Tensor = torch.ops.aten.convolution.default(*call.args[:9])
    least, most = (None if bound is None else float(torch.tensor(bound)) for bound in call.args[9:11])
    return out if least is None and most is None else out.clamp(least, most)
