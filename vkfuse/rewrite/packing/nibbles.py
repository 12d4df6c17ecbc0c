"""Two 4-bit values a byte, each plus 8, in either order.

``et_vk.linear_q4gsw`` and ``et_vk.embedding_q4gsw(is_linear_weight=True)`` read the even column in the low nibble
(`low_first`), ``is_linear_weight=False`` reads it in the high one.
Source: executorch 1.5, backends/vulkan/custom_ops_lib.py (`unpack_4bit_weight_tensor`, `embedding_q4gsw_impl`).
"""

import torch

LOWEST, HIGHEST = -8, 7


def pack(values: torch.Tensor, *, low_first: bool = True) -> torch.Tensor:
    """Integers in [-8, 7], [rows, columns] with an even number of columns, as uint8 [rows, columns / 2]."""
    low, high = _columns(low_first=low_first)
    shifted = (values + 8).to(torch.uint8)
    return shifted[:, low::2] | (shifted[:, high::2] << 4)


def unpack(packed: torch.Tensor, *, low_first: bool = True) -> torch.Tensor:
    """The int8 values [rows, columns] of `pack`'s bytes."""
    low, high = _columns(low_first=low_first)
    values = torch.empty((packed.shape[0], packed.shape[1] * 2), dtype=torch.int8)
    values[:, low::2] = packed & 15
    values[:, high::2] = packed >> 4
    return values.sub_(8)


def _columns(*, low_first: bool) -> tuple[int, int]:
    """The columns of a byte's low and high nibble."""
    return (0, 1) if low_first else (1, 0)


def fits(values: torch.Tensor) -> bool:
    """Whether all integers of a tensor (any shape) lie in [-8, 7]."""
    if values.numel() == 0:
        return True
    low, high = torch.aminmax(values)
    return int(low) >= LOWEST and int(high) <= HIGHEST
