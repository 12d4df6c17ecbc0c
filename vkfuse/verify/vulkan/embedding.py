"""Lookups: the fused 4-bit one as its shader reads memory, and the float one without a bounds check."""

import torch

from vkfuse.pte.enums import VkStorageType
from vkfuse.runtime.codes import Code
from vkfuse.verify.tensors import undefined
from vkfuse.verify.vulkan.call import Call

_OFFSET = 8  # values are stored plus this, two a byte
_LANES = 4  # values that one texel holds, and that one shader load covers


def embedding_q4gsw(call: Call) -> torch.Tensor:
    """`(weight [V, D/2], scales, group_size, indices, is_linear_weight)` -> [*indices, D].

    Source: impl/EmbeddingQ4gsw.cpp and glsl/embedding_q4gsw.glsl.
    """
    weight, scales = call.tensor(0), call.tensor(1)
    group_size, indices = call.integer(2), call.tensor(3)
    columns = weight.shape[-1] * 2
    rows = _indices_as_fetched(call, indices)
    inside = (rows >= 0) & (rows < weight.shape[0])
    safe = torch.where(inside, rows, 0)
    values = unpack_nibbles(weight[safe], low_first=bool(call.args[4]))
    out = values * _scales_as_loaded(call, scales, safe, columns, group_size)
    if not bool(inside.all()):
        call.note(Code.NO_BOUNDS_CHECK)
        out[~inside] = undefined((), out.dtype)
    return out.reshape(*indices.shape, columns)


def embedding(call: Call) -> torch.Tensor:
    """`(weight, indices, ...)`; an index outside of the table reads whatever lies there."""
    return _rows(call, call.tensor(0), call.tensor(1).long())


def index(call: Call) -> torch.Tensor:
    """`(self, indices)`, one tensor: rows, and outside of them, negative ones too, whatever lies there."""
    (indices,) = [each for each in call.args[1] if each is not None]
    if call.args[1][0] is None:
        return torch.ops.aten.index.Tensor(call.tensor(0), call.args[1])  # type: ignore[no-any-return]
    return _rows(call, call.tensor(0), indices.long())


def _rows(call: Call, weight: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    inside = (indices >= 0) & (indices < weight.shape[0])
    out = weight[torch.where(inside, indices, 0)]
    if not bool(inside.all()):
        call.note(Code.NO_BOUNDS_CHECK)
        out[~inside] = undefined((), out.dtype)
    return out


def unpack_nibbles(
    packed: torch.Tensor, *, low_first: bool, space: torch.Tensor | None = None
) -> torch.Tensor:
    """[..., D/2] bytes -> float32 [..., D], values -8..7, in `space` where that is given.

    `low_first`: the even column is the low nibble.
    """
    pairs = packed.to(torch.int16, memory_format=torch.contiguous_format)
    if low_first:  # a nibble in each byte, the first value in the lower one
        pairs |= pairs << 4
    else:
        pairs = (pairs >> 4).bitwise_or_(pairs << 8)
    values = pairs.bitwise_and_(0x0F0F).view(torch.int8).sub_(_OFFSET)
    return values.float() if space is None else space.copy_(values)


def scaled(values: torch.Tensor, scales: torch.Tensor, group: int) -> torch.Tensor:
    """`values` float32 [rows, columns], which are overwritten, times the scale of their group, [rows, groups]."""
    rows, columns = values.shape
    factors = scales.float()
    if columns == factors.shape[1] * group:
        return values.reshape(rows, factors.shape[1], group).mul_(factors[:, :, None]).flatten(1)
    return values.mul_(factors[:, torch.arange(columns) // group])


def _indices_as_fetched(call: Call, indices: torch.Tensor) -> torch.Tensor:
    """Return the flat list of row numbers that the shader sees."""
    flat = indices.reshape(-1).long()
    width = indices.shape[-1] if indices.dim() else 1
    if call.storage(3) is VkStorageType.BUFFER or flat.numel() <= width:
        return flat
    call.note(Code.INDICES_MORE_THAN_ONE_ROW)
    fetched = torch.zeros_like(flat)  # padding of the last texel, and texels past the image
    fetched[:width] = flat[:width]
    return fetched


def _scales_as_loaded(
    call: Call, scales: torch.Tensor, rows: torch.Tensor, columns: int, group_size: int
) -> torch.Tensor:
    """Return float32 [rows, columns]: `t_scales[row * (columns / group) + column / group]`, by fours."""
    groups = columns // max(1, group_size)
    if group_size % _LANES:
        call.note(Code.GROUP_NOT_MULTIPLE_OF_4)
    if tuple(scales.shape) != (call.tensor(0).shape[0], groups):
        call.note(Code.SCALES_READ_FLAT)
    column = torch.arange(columns) // _LANES * _LANES // max(1, group_size)
    at = rows[:, None] * groups + column[None, :]
    flat = scales.reshape(-1)
    loaded = flat[at.clamp(max=flat.numel() - 1)].to(torch.float32)
    return torch.where(at < flat.numel(), loaded, undefined((), torch.float32))
