"""Two 4-bit values a byte, as ``et_vk.linear_q4gsw`` and ``et_vk.embedding_q4gsw(is_linear_weight=True)`` read them.

Source: executorch 1.5, backends/vulkan/custom_ops_lib.py (`unpack_4bit_weight_tensor`).
"""

import torch

LOWEST, HIGHEST = -8, 7


def pack(values: torch.Tensor) -> torch.Tensor:
    """Integers in [-8, 7], [rows, columns] with an even number of columns, as uint8 [rows, columns / 2].

    The even column is the low nibble, the odd one the high nibble, each plus 8.
    """
    shifted = (values + 8).to(torch.uint8)
    return shifted[:, 0::2] | (shifted[:, 1::2] << 4)


def unpack(packed: torch.Tensor) -> torch.Tensor:
    """The int8 values [rows, columns] of `pack`'s bytes."""
    values = torch.empty((packed.shape[0], packed.shape[1] * 2), dtype=torch.int8)
    values[:, 0::2] = packed & 15
    values[:, 1::2] = packed >> 4
    return values.sub_(8)


def fits(values: torch.Tensor) -> bool:
    """Whether all integers of a tensor (any shape) lie in [-8, 7]."""
    if values.numel() == 0:
        return True
    low, high = torch.aminmax(values)
    return int(low) >= LOWEST and int(high) <= HIGHEST
