"""Reductions and softmax as the shaders compute them."""

from collections.abc import Callable

import torch

from vkfuse.pte.enums import VkStorageType
from vkfuse.pte.vulkan import VkTensor
from vkfuse.runtime.codes import Code
from vkfuse.verify.vulkan.call import Call, Kernel

_HALF_MAX = 65504.0
_LOWEST = -3.402823e38
_SMALLEST_SUM = 1e-37
_WORKERS = 4
_SUMMED_ALIKE = 64  # values whose sum in half is no worse than one rounded result
_FAR_BELOW = -80.0  # where the exponential is next to the smallest sum

Reduction = Callable[[torch.Tensor, list[int], bool], torch.Tensor]


def reduction(operation: Reduction) -> Kernel:
    """Return the kernel of `(input, dims, keepdim)`: impl/Reduce.cpp.

    glsl/convert.glslh clamps rows of buffers: `#if T == float16_t` holds for every T.
    """

    def run(call: Call) -> torch.Tensor:
        x = call.tensor(0)
        dims = list(range(x.dim())) if call.args[1] is None else list(call.args[1])
        out = operation(x.float() if x.is_floating_point() else x, dims, bool(call.args[2]))
        in_rows = dims in ([-1], [x.dim() - 1]) and call.storage(0) is VkStorageType.BUFFER
        if in_rows and x.is_floating_point() and bool((out.abs() > _HALF_MAX).any()):
            call.note(Code.ROW_REDUCTION_CLAMPED)
            return out.clamp(-_HALF_MAX, _HALF_MAX)
        return out

    return run


def arg_reduction(operation: Callable[[torch.Tensor, int, bool], torch.Tensor]) -> Kernel:
    """Return the kernel of `(input, dim, keepdim)`: impl/ArgReduce.cpp."""

    def run(call: Call) -> torch.Tensor:
        dim = 0 if call.args[1] is None else call.integer(1)
        return operation(call.tensor(0), dim, bool(call.args[2]))

    return run


def softmax(call: Call) -> torch.Tensor:
    """`(input, dim, half_to_float)`: glsl/softmax.glsl."""
    shifted, total = _softmax_parts(call)
    return shifted.exp() / total


def log_softmax(call: Call) -> torch.Tensor:
    """`(input, dim, half_to_float)`: glsl/softmax.glsl."""
    shifted, total = _softmax_parts(call)
    return shifted - total.log()


def _softmax_parts(call: Call) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the shifted input and the sum of its exponentials."""
    x, dim = call.tensor(0).float(), call.integer(1)
    if not x.dim():
        return x - x, torch.ones(())
    largest = x.amax(dim, keepdim=True)
    if bool((largest == -torch.inf).any()):
        call.note(Code.MASKED_ROW_ZERO)
    if _fetches_beyond(call, x, dim):
        if bool((largest < _FAR_BELOW).any()):
            call.note(Code.SHORT_SOFTMAX_FROM_ZERO)
        largest = largest.clamp(min=0)
    shifted = x - largest.clamp(min=_LOWEST)
    if call.dtype() is torch.float16 and x.shape[dim] > _SUMMED_ALIKE:
        call.note(Code.SUMS_IN_HALF)
        return shifted, _sum_in_half(call, shifted, dim)
    return shifted, shifted.exp().sum(dim, keepdim=True).clamp(min=_SMALLEST_SUM)


def _sum_in_half(call: Call, shifted: torch.Tensor, dim: int) -> torch.Tensor:
    """Return the sum of exponentials by four workers in turn, of lanes apart where the texels lie along the dimension."""
    tensor, along = call.operands[0], shifted.dim() - 1 - dim % shifted.dim()
    in_texels = call.storage(0) is not VkStorageType.BUFFER and isinstance(tensor, VkTensor)
    packed = in_texels and int(tensor.layout) == along  # type: ignore[union-attr]
    columns = shifted.exp().half().movedim(dim, 0)
    workers = _WORKERS * (4 if packed else 1)
    zeros = columns.new_zeros((-columns.shape[0] % workers, *columns.shape[1:]))
    turns = torch.cat([columns, zeros]).view(-1, workers, *columns.shape[1:])
    total = torch.zeros_like(turns[0])
    for turn in turns:
        total = total + turn
    return total.float().sum(0).unsqueeze(0).movedim(0, dim).clamp(min=_SMALLEST_SUM)


def _fetches_beyond(call: Call, x: torch.Tensor, dim: int) -> bool:
    """Whether some of the four workers that search the largest value have none, across a texture's texels."""
    if x.shape[dim] >= _WORKERS or call.storage(0) is VkStorageType.BUFFER:
        return False
    tensor = call.operands[0]
    return isinstance(tensor, VkTensor) and int(tensor.layout) != x.dim() - 1 - dim % x.dim()
