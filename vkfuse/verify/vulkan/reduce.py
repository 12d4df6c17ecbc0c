"""Reductions and softmax as the shaders compute them."""

from collections.abc import Callable
from typing import Final

import torch

from vkfuse.pte.enums import VkStorageType
from vkfuse.pte.vulkan import VkTensor
from vkfuse.runtime.codes import Code
from vkfuse.verify.vulkan.call import Call, Kernel
from vkfuse.verify.vulkan.elementwise import has_nan

_HALF_MAX = 65504.0
_LOWEST = -3.402823e38
_SMALLEST_SUM = 1e-37
_WORKERS = 4
_SUMMED_ALIKE = 64  # values whose sum in half is no worse than one rounded result
_FAR_BELOW = -80.0  # where the exponential is next to the smallest sum

_ROW_WORKERS = 64

Reduction = Callable[[torch.Tensor, list[int], bool], torch.Tensor]
_SIGNS: Final[dict[Reduction, int]] = {torch.amax: 1, torch.amin: -1}


def reduction(operation: Reduction) -> Kernel:
    """Return the kernel of `(input, dims, keepdim)`: impl/Reduce.cpp.

    glsl/convert.glslh clamps rows of buffers: `#if T == float16_t` holds for every T.
    """

    def run(call: Call) -> torch.Tensor:
        x = call.tensor(0)
        dims = list(range(x.dim())) if call.args[1] is None else list(call.args[1])
        keepdim = bool(call.args[2])
        in_rows = dims in ([-1], [x.dim() - 1]) and call.storage(0) is VkStorageType.BUFFER
        if not x.is_floating_point():
            return operation(x, dims, keepdim)
        out = _reduced(operation, x.float(), dims, keepdim=keepdim, in_rows=in_rows)
        if has_nan(x):
            call.note(Code.NOT_FINITE)
        if in_rows and bool((out.abs() > _HALF_MAX).any()):
            call.note(Code.ROW_REDUCTION_CLAMPED)
        return out.nan_to_num(-_HALF_MAX).clamp(-_HALF_MAX, _HALF_MAX) if in_rows else out

    return run


def arg_reduction(operation: Callable[[torch.Tensor, int, bool], torch.Tensor]) -> Kernel:
    """Return the kernel of `(input, dim, keepdim)`: impl/ArgReduce.cpp."""

    def run(call: Call) -> torch.Tensor:
        x, dim = call.tensor(0), 0 if call.args[1] is None else call.integer(1)
        if not has_nan(x):
            return operation(x, dim, bool(call.args[2]))
        call.note(Code.NOT_FINITE)
        places = _by_workers(x.float(), -1 if operation is torch.argmin else 1)[1]
        return places.unsqueeze(-1) if call.args[2] else places

    return run


def _reduced(
    operation: Reduction, x: torch.Tensor, dims: list[int], *, keepdim: bool, in_rows: bool
) -> torch.Tensor:
    """Reduce floats; extrema are of what is no NaN, in rows of buffers as they happen to be compared."""
    sign = _SIGNS.get(operation)
    if sign is None or not has_nan(x):
        return operation(x, dims, keepdim)
    if in_rows:
        found = _by_workers(x, sign)[0]
        return found.unsqueeze(-1) if keepdim else found
    undefined = x.isnan().all(dim=tuple(dims), keepdim=keepdim)
    found = operation(torch.where(x.isnan(), -sign * torch.inf, x), dims, keepdim)
    return torch.where(undefined, torch.nan, found)


def _by_workers(x: torch.Tensor, sign: int) -> "_Found":
    """Return the greatest (least: `sign` -1) of each row and its place, as 64 workers and then pairs of them compare.

    A NaN stays where it comes first, and loses where it comes later: glsl/reduce_per_row_buffer.glsl.
    """
    ends = torch.arange(-(-x.shape[-1] // _ROW_WORKERS) * _ROW_WORKERS)
    places = torch.where(ends < x.shape[-1], ends, 0)  # a worker without a value takes the first
    both = x[..., places], places.expand(*x.shape[:-1], -1)
    found = _part(both, 0, _ROW_WORKERS)
    for start in range(_ROW_WORKERS, len(places), _ROW_WORKERS):
        found = _better(found, _part(both, start, _ROW_WORKERS), sign)
    while (half := found[0].shape[-1] // 2) > 0:
        found = _better(_part(found, 0, half), _part(found, half, half), sign)
    return found[0][..., 0], found[1][..., 0]


_Found = tuple[torch.Tensor, torch.Tensor]


def _part(found: _Found, start: int, count: int) -> _Found:
    return found[0].narrow(-1, start, count), found[1].narrow(-1, start, count)


def _better(kept: _Found, other: _Found, sign: int) -> _Found:
    """Values and places of which the first stay where the others are no better: glsl/reduce_op_defs.glslh."""
    wins = other[0] * sign > kept[0] * sign
    value = torch.where(wins, other[0], kept[0])
    earlier = wins | ((other[0] == value) & (other[1] < kept[1]))
    return value, torch.where(earlier, other[1], kept[1])


def softmax(call: Call) -> torch.Tensor:
    """`(input, dim, half_to_float)`: glsl/softmax.glsl."""
    shifted, total = _softmax_parts(call)
    return _finite(call, shifted.exp() / total)


def log_softmax(call: Call) -> torch.Tensor:
    """`(input, dim, half_to_float)`: glsl/softmax.glsl."""
    shifted, total = _softmax_parts(call)
    return _finite(call, shifted - total.log())


def _finite(call: Call, out: torch.Tensor) -> torch.Tensor:
    """Return zeros for what is no number, infinity too, where the texels do not lie along the dimension."""
    if bool(out.isfinite().all()):
        return out
    call.note(Code.NOT_FINITE)
    return out if _along_texels(call, out.dim()) else out.where(out.isfinite(), 0.0)


def _softmax_parts(call: Call) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the shifted input and the sum of its exponentials, next to zero where it is no number."""
    x, dim = call.tensor(0).float(), call.integer(1)
    if not x.dim():
        return x - x, torch.ones(())
    largest = torch.where(x.isnan(), -torch.inf, x).amax(dim, keepdim=True)
    if bool((largest == -torch.inf).any()):
        call.note(Code.MASKED_ROW_ZERO)
    if bool((x.isnan() | (x == torch.inf)).any()):
        call.note(Code.NOT_FINITE)
    if _fetches_beyond(call, x, dim):
        if bool((largest < _FAR_BELOW).any()):
            call.note(Code.SHORT_SOFTMAX_FROM_ZERO)
        largest = largest.clamp(min=0)
    shifted = x - largest.clamp(min=_LOWEST)
    if call.dtype() is torch.float16 and x.shape[dim] > _SUMMED_ALIKE:
        call.note(Code.SUMS_IN_HALF)
        return shifted, _sum_in_half(call, shifted, dim)
    total = shifted.exp().sum(dim, keepdim=True)
    return shifted, torch.where(total.isnan(), 0.0, total).clamp(min=_SMALLEST_SUM)


def _sum_in_half(call: Call, shifted: torch.Tensor, dim: int) -> torch.Tensor:
    """Return the sum of exponentials by four workers in turn, of lanes apart where the texels lie along the dimension."""
    columns = shifted.exp().half().movedim(dim, 0)
    workers = _WORKERS * (4 if _along_texels(call, shifted.dim()) else 1)
    zeros = columns.new_zeros((-columns.shape[0] % workers, *columns.shape[1:]))
    turns = torch.cat([columns, zeros]).view(-1, workers, *columns.shape[1:])
    total = torch.zeros_like(turns[0])
    for turn in turns:
        total = total + turn
    return total.float().sum(0).unsqueeze(0).movedim(0, dim).clamp(min=_SMALLEST_SUM)


def _fetches_beyond(call: Call, x: torch.Tensor, dim: int) -> bool:
    """Whether some of the four workers that search the largest value have none, across a texture's texels."""
    in_buffer = call.storage(0) is VkStorageType.BUFFER
    return x.shape[dim] < _WORKERS and not in_buffer and not _along_texels(call, x.dim())


def _along_texels(call: Call, rank: int) -> bool:
    """Whether a texel has four values along the dimension of a softmax."""
    tensor = call.operands[0]
    packed = call.storage(0) is not VkStorageType.BUFFER and isinstance(tensor, VkTensor)
    return packed and int(tensor.layout) == rank - 1 - call.integer(1) % rank  # type: ignore[union-attr]
