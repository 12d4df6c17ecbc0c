"""Two 4-bit values a byte, each plus 8, in either order.

``et_vk.linear_q4gsw`` and ``et_vk.embedding_q4gsw(is_linear_weight=True)`` read the even column in the low nibble
(`low_first`), ``is_linear_weight=False`` reads it in the high one.
Source: executorch 1.5, backends/vulkan/custom_ops_lib.py (`unpack_4bit_weight_tensor`, `embedding_q4gsw_impl`).
"""

import numpy as np

from vkfuse.tables.chunks import chunks
from vkfuse.tables.floats import Array

LOWEST, HIGHEST = -8, 7


def pack(values: Array, *, low_first: bool = True) -> Array:
    """Integers in [-8, 7], [rows, columns] with an even number of columns, as uint8 [rows, columns / 2]."""
    low, high = _columns(low_first=low_first)
    packed = np.empty((values.shape[0], values.shape[1] // 2), dtype=np.uint8)
    for rows in chunks(*values.shape):
        shifted = (values[rows] + 8).astype(np.uint8)
        packed[rows] = shifted[:, low::2] | (shifted[:, high::2] << np.uint8(4))
    return packed


def unpack(packed: Array, *, low_first: bool = True) -> Array:
    """The int8 values [rows, columns] of `pack`'s bytes."""
    low, high = _columns(low_first=low_first)
    values = np.empty((packed.shape[0], packed.shape[1] * 2), dtype=np.int8)
    values[:, low::2] = packed & np.uint8(15)
    values[:, high::2] = packed >> np.uint8(4)
    values -= np.int8(8)
    return values


def _columns(*, low_first: bool) -> tuple[int, int]:
    """The columns of a byte's low and high nibble."""
    return (0, 1) if low_first else (1, 0)


def fits(values: Array) -> bool:
    """Whether all integers of an array (any shape) lie in [-8, 7]."""
    return values.size == 0 or (int(values.min()) >= LOWEST and int(values.max()) <= HIGHEST)
