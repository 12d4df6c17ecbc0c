"""Products of float matrices, whose sums are in half where the shader's type is: impl/Matmul.cpp, impl/Linear.cpp."""

import torch

from vkfuse.pte.enums import VkStorageType
from vkfuse.runtime.codes import Code
from vkfuse.verify.halves import is_summed_in_half, product_in_half
from vkfuse.verify.overflow import of_any_order
from vkfuse.verify.vulkan.call import Call


def matmul(call: Call) -> torch.Tensor:
    """`(mat1 [.., M, K], mat2 [.., K, N])`."""
    return _product(call, call.tensor(0), call.tensor(1))


def addmm(call: Call) -> torch.Tensor:
    """`(bias, mat1 [M, K], mat2 [K, N], beta, alpha)`."""
    beta, alpha = (1 if at >= len(call.args) or call.args[at] is None else call.args[at] for at in (3, 4))
    return call.tensor(0) * beta + _product(call, call.tensor(1), call.tensor(2)) * alpha


def linear(call: Call) -> torch.Tensor:
    """`(input [.., K], weight [N, K], bias)`."""
    bias = call.optional_tensor(2) if len(call.args) > 2 else None
    out = _product(call, call.tensor(0), call.tensor(1).t())
    return out if bias is None else out + bias


def _product(call: Call, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    in_buffer = call.storage(len(call.args)) is VkStorageType.BUFFER
    if not (in_buffer and call.dtype() is torch.float16 and is_summed_in_half(first, second)):
        return of_any_order(first @ second, first, second)
    call.note(Code.SUMS_IN_HALF)
    return product_in_half(first, second, fused=True)
