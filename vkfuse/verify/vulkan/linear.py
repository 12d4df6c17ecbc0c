"""Quantized linears as their shaders compute them, whose weights are unpacked by blocks of rows to bound memory.

Products of float matrices, whose sums are in half where the shader's type is: impl/Matmul.cpp, impl/Linear.cpp.
"""

from collections.abc import Iterator, Sequence

import torch
from torch.nn import functional

from vkfuse.pte.enums import VkStorageType
from vkfuse.runtime.codes import Code
from vkfuse.runtime.operators.linear import sum_threads
from vkfuse.verify.bounds import BLOCK_VALUES
from vkfuse.verify.halves import is_summed_in_half, of_any_order, product_in_half
from vkfuse.verify.rowwise import multiplied
from vkfuse.verify.tensors import undefined
from vkfuse.verify.vulkan.call import Call
from vkfuse.verify.vulkan.embedding import scaled, unpack_nibbles

_SMALLEST_SCALE = 6.1e-5


def linear_q4gsw(call: Call) -> torch.Tensor:
    """`(input, weight [N, K/2], scales [groups, N], group_size, bias)` -> [..., N].

    Source: impl/Q4gswLinear.cpp; glsl/q4gsw_linear_gemm__w_4x8.glsl, for one row
    q4gsw_linear_gemv_coop__w_4x8.glsl.
    """
    return linears_q4gsw([call])[0]


def linears_q4gsw(calls: Sequence[Call]) -> list[torch.Tensor]:
    """Compute calls of `linear_q4gsw` by one weight."""
    return _weight_only(calls, weight=1, scales=2, group=3, bias=4)


def choose_qparams_affine(call: Call) -> tuple[torch.Tensor, torch.Tensor]:
    """`(input, mapping, block_size, target, quant_min, quant_max, ...)` -> scales and zero points, one a row.

    Source: impl/ChooseQParams.cpp and glsl/choose_qparams_per_row.glsl.
    """
    x = call.tensor(0)
    call.note(Code.QPARAMS_NUDGED)
    low = -128 if call.args[4] is None else int(call.args[4])
    high = 127 if call.args[4] is None else int(call.args[5])
    rows = x.reshape(-1, x.shape[-1]).float()
    scale, zero = nudged_qparams(rows.amin(-1), rows.amax(-1), low, high)
    return scale.reshape(x.shape[:-1]), zero.reshape(x.shape[:-1])


def nudged_qparams(
    least: torch.Tensor, most: torch.Tensor, low: int, high: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return float32 scales and int32 zero points of ranges.

    Source: glsl/choose_qparams_per_row.glsl, calculate_scale_and_zero_point.
    """
    least, most = least.clamp(max=0.0), most.clamp(min=0.0)
    scale = (most - least) / float(high - low)
    scale = torch.where((scale == 0) | torch.isinf(1.0 / scale), 0.1, scale)
    small = scale < _SMALLEST_SCALE
    amplifier = _SMALLEST_SCALE / scale
    widened_most = torch.where(least == 0, _SMALLEST_SCALE * float(high - low), most * amplifier)
    widened_most = torch.where((least != 0) & (most == 0), most, widened_most)
    widened_least = torch.where(most == 0, -_SMALLEST_SCALE * float(high - low), least * amplifier)
    widened_least = torch.where(least == 0, least, widened_least)
    least, most = torch.where(small, widened_least, least), torch.where(small, widened_most, most)
    scale = torch.where(small, _SMALLEST_SCALE, scale)
    from_least, from_most = low - least / scale, high - most / scale
    error_least = abs(float(low)) - (least / scale).abs()
    error_most = abs(float(high)) - (most / scale).abs()
    zero = torch.where(error_least < error_most, from_least, from_most)
    return scale, zero.round().clamp(low, high).to(torch.int32)


def linear_dq8ca_q4gsw(call: Call) -> torch.Tensor:
    """`(input, scale, zero, weight [N, K/2], sums, scales [groups, N], group_size, bias)` -> [..., N].

    Source: impl/QuantizedLinear.cpp; glsl/linear_dq8ca_q4gsw_tiled.glsl with
    quantize_and_pack_4h4w_with_group_sums.glsl, for one row linear_q4gsw_coop.glsl. Integer sums are
    exact there as in floats here.
    """
    x, weight, sums, scales = call.tensor(0), call.tensor(3), call.tensor(4), call.tensor(5)
    group_size, bias = call.integer(6), call.optional_tensor(7)
    matrix = first_matrix(call, x)
    if matrix.shape[0] == 1:
        return linears_dq8ca_q4gsw([call])[0]
    out = _integer_grouped(call, matrix, weight, sums.reshape(-1), scales.reshape(-1), group_size)
    return batched(x, out if bias is None else out + bias.float())


def linears_dq8ca_q4gsw(calls: Sequence[Call]) -> list[torch.Tensor]:
    """Compute calls of `linear_dq8ca_q4gsw` by one weight, those of one row, which is not quantized, together."""
    if any(len(first_matrix(call, call.tensor(0))) > 1 for call in calls):
        return [linear_dq8ca_q4gsw(call) for call in calls]
    for call in calls:
        call.note(Code.ONE_ROW_NOT_QUANTIZED)
    return _weight_only(calls, weight=3, scales=5, group=6, bias=7)


def _weight_only(
    calls: Sequence[Call], *, weight: int, scales: int, group: int, bias: int
) -> list[torch.Tensor]:
    """Compute linears of floats by one weight, whose rows are unpacked once for all of them."""
    if len({(call.tensor(weight).data_ptr(), call.tensor(scales).data_ptr()) for call in calls}) > 1:
        alone = [_weight_only([call], weight=weight, scales=scales, group=group, bias=bias) for call in calls]
        return [out for (out,) in alone]
    matrices = [first_matrix(call, call.tensor(0)) for call in calls]
    call = calls[0]
    outs = _grouped(
        calls, matrices, call.tensor(weight), call.tensor(scales).reshape(-1), call.integer(group)
    )
    biases = [call.optional_tensor(bias) for call in calls]
    return [
        batched(call.tensor(0), out if added is None else out + added.float())
        for call, out, added in zip(calls, outs, biases, strict=True)
    ]


def linear_q4gsw_backward(call: Call) -> torch.Tensor:
    """`(d_out [..., N], weight [N, K/2], scales [groups, N], group_size)` -> [..., K]: glsl/q4gsw_backward.glsl."""
    grad, weight, scales = call.tensor(0), call.tensor(1), call.tensor(2)
    rows, columns = weight.shape[0], weight.shape[1] * 2
    groups, stride = _groups(call, columns, call.integer(3))
    by_group = _group_table(call, scales.reshape(-1), groups, rows)
    out = torch.zeros(*grad.shape[:-1], columns)
    for start, values in _row_blocks(weight):
        stop = start + values.shape[0]
        factors = by_group[:, start:stop].t().repeat_interleave(stride, dim=1)[:, :columns]
        out += grad[..., start:stop].float() @ (values * factors)
    return out


def first_matrix(call: Call, x: torch.Tensor) -> torch.Tensor:
    """Return float32 [rows, K]: the matrix that the dispatch covers."""
    batch = x.shape[:-2].numel()
    if batch > 1:
        call.note(Code.LINEAR_INPUT_BATCHED)
    return x.reshape(batch, -1, x.shape[-1])[0].float()


def batched(x: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    """Return [..., N]: `out` as the first matrix, nothing defined in the others."""
    shape = (*x.shape[:-1], out.shape[-1])
    if x.shape[:-2].numel() == 1:
        return out.reshape(shape)
    whole = undefined(shape, out.dtype)
    whole.reshape(-1, *out.shape)[0] = out
    return whole


def _row_blocks(weight: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
    """Yield (first row, float32 rows) of a packed weight, a bounded number of values at a time, all in one place."""
    rows, columns = weight.shape[0], weight.shape[1] * 2
    step = max(1, BLOCK_VALUES // max(1, columns))
    space = torch.empty(min(step, rows), columns)
    for start in range(0, rows, step):
        packed = weight[start : start + step]
        yield start, unpack_nibbles(packed, low_first=True, space=space[: len(packed)])


def _groups(call: Call, columns: int, group_size: int) -> tuple[int, int]:
    """Return how many groups the shader walks, and columns a group, in steps of four."""
    stride = group_size // 4 * 4
    if stride == 0:
        raise call.fails(f"groups of {group_size}: division by zero")
    groups = (columns + 3) // 4 * 4 // stride
    if stride != group_size:
        call.note(Code.GROUP_NOT_MULTIPLE_OF_4)
    elif groups * stride != columns:
        call.note(Code.GROUP_DOES_NOT_DIVIDE_COLUMNS)
    return groups, stride


def _grouped(
    calls: Sequence[Call],
    matrices: Sequence[torch.Tensor],
    weight: torch.Tensor,
    scales: torch.Tensor,
    group_size: int,
) -> Sequence[torch.Tensor]:
    """Multiply matrices, float32 [M, K], with the weight's values by `scales[group * N + row]`."""
    rows, columns = weight.shape[0], min(weight.shape[1] * 2, matrices[0].shape[-1])
    (groups, stride), *_ = [_groups(call, columns, group_size) for call in calls]
    by_group, *_ = [_group_table(call, scales, groups, rows) for call in calls]
    covered = min(groups * stride, columns)
    blocks = (
        scaled(values[:, :covered], by_group[:, start : start + len(values)].t(), stride)
        for start, values in _row_blocks(weight)
    )
    return multiplied([x[:, :covered] for x in matrices], blocks, rows, _product)


def _product(x: torch.Tensor, block: torch.Tensor) -> torch.Tensor:
    return of_any_order(functional.linear(x, block), x, block.t())


def _group_table(call: Call, flat: torch.Tensor, groups: int, rows: int) -> torch.Tensor:
    """Return [groups, rows] of a flat buffer with rows in fours; what lies past its end is undefined."""
    pitch = (rows + 3) // 4 * 4
    needed = groups * pitch
    if flat.numel() != groups * rows or pitch != rows:
        call.note(Code.SCALES_READ_FLAT)
    if flat.numel() < needed:
        flat = torch.cat([flat, undefined((needed - flat.numel(),), flat.dtype)])
    return flat[:needed].reshape(groups, pitch)[:, :rows]


def _integer_grouped(
    call: Call,
    x: torch.Tensor,
    weight: torch.Tensor,
    sums: torch.Tensor,
    scales: torch.Tensor,
    group_size: int,
) -> torch.Tensor:
    """Quantize x by rows, multiply integers, correct each group's sum for the zero point, scale.

    ``scale[m] * sum over groups g of scales[g, n] * (dot[g, m, n] - zero[m] * sums[g, n])``; the zero point is taken off
    the activations first and the scales of the groups multiplied into the weights, so that one product does for all
    groups: the same up to float32 rounding, zero where a row is. What is wrong with `sums` comes on top.
    """
    quantized, scale, zero = _quantized_rows(call, x)
    rows, columns = weight.shape[0], min(weight.shape[1] * 2, x.shape[-1])
    groups, stride = _groups(call, columns, group_size)
    by_group, sum_table = _group_table(call, scales, groups, rows), _group_table(call, sums, groups, rows)
    covered = min(groups * stride, columns)
    centered = (quantized - zero[:, None].float())[:, :covered]
    counted = _counted_again(call, quantized[:, :covered], stride)
    out = torch.empty(x.shape[0], rows)
    for start, values in _row_blocks(weight):
        stop = start + values.shape[0]
        told = sum_table[:, start:stop] - _sums_by_group(values[:, :covered], groups, stride)
        excess = (by_group[:, start:stop].double() * told.double()).sum(dim=0)
        dots = functional.linear(centered, scaled(values[:, :covered], by_group[:, start:stop].t(), stride))
        dots = dots - (zero[:, None] * excess).float()
        if counted is not None:
            dots = dots - 8 * (counted @ by_group[:, start:stop].double()).float()
        out[:, start:stop] = dots * scale[:, None]
    return out


def _counted_again(call: Call, quantized: torch.Tensor, stride: int) -> torch.Tensor | None:
    """What the sums of groups [M, groups] hold too much, float64; they are taken eight times, since nibbles are unsigned.

    A thread takes every so many fours of a group, and adds its sum to itself at each turn but the first.
    """
    threads, fours = sum_threads(stride), stride // 4
    if fours <= threads:
        return None
    call.note(Code.GROUP_SUMMED_IN_TURNS)
    places = torch.arange(fours)
    left = (fours - 1 - places) // threads  # turns of the same thread that follow
    parts = functional.pad(quantized, (0, -quantized.shape[1] % stride)).double()
    return parts.reshape(len(parts), -1, fours, 4).sum(-1) @ (torch.exp2(left.double()) - 1)


def _sums_by_group(values: torch.Tensor, groups: int, stride: int) -> torch.Tensor:
    """Return [groups, rows] of values [rows, columns], the last group cut off where the columns end."""
    padded = functional.pad(values, (0, groups * stride - values.shape[1]))
    return padded.reshape(len(values), groups, stride).sum(dim=-1, dtype=torch.int32).t()


def _quantized_rows(call: Call, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(quantized float32 [M, K], scale [M], zero point [M]) by the file's own parameters of the rows."""
    scale = call.tensor(1).reshape(-1).float()
    zero = call.tensor(2).reshape(-1).double()
    quantized = (x * (1.0 / scale)[:, None]).round() + zero[:, None].float()
    return quantized.clamp(-128, 127), scale, zero


def matmul(call: Call) -> torch.Tensor:
    """`(mat1 [.., M, K], mat2 [.., K, N])`."""
    return _of_floats(call, call.tensor(0), call.tensor(1))


def addmm(call: Call) -> torch.Tensor:
    """`(bias, mat1 [M, K], mat2 [K, N], beta, alpha)`."""
    beta, alpha = (1 if at >= len(call.args) or call.args[at] is None else call.args[at] for at in (3, 4))
    return call.tensor(0) * beta + _of_floats(call, call.tensor(1), call.tensor(2)) * alpha


def linear(call: Call) -> torch.Tensor:
    """`(input [.., K], weight [N, K], bias)`."""
    bias = call.optional_tensor(2) if len(call.args) > 2 else None
    out = _of_floats(call, call.tensor(0), call.tensor(1).t())
    return out if bias is None else out + bias


def _of_floats(call: Call, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    in_buffer = call.storage(len(call.args)) is VkStorageType.BUFFER
    if not (in_buffer and call.dtype() is torch.float16 and is_summed_in_half(first, second)):
        return of_any_order(first @ second, first, second)
    call.note(Code.SUMS_IN_HALF)
    return product_in_half(first, second, fused=True)
