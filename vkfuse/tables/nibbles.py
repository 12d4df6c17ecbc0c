"""Two 4-bit values a byte, each plus 8, in either order.

``et_vk.linear_q4gsw`` and ``et_vk.embedding_q4gsw(is_linear_weight=True)`` read the even column in the low nibble
(`low_first`), ``is_linear_weight=False`` reads it in the high one.
Source: executorch 1.5, backends/vulkan/custom_ops_lib.py (`unpack_4bit_weight_tensor`, `embedding_q4gsw_impl`).

Integers of two, four or eight bits as ExecuTorch's CPU lookups store them: kernels/quantized/cpu/embeddingxb.cpp and
op_embedding.cpp.
"""

from typing import Final

import numpy as np

from vkfuse.tables.floats import Array, chunks

LOWEST, HIGHEST = -8, 7
_PAIR: Final = np.dtype("<u2")  # two neighbouring columns, the even one in the low byte
_NIBBLES: Final = np.uint16(0x0F0F)
_FOUR: Final = np.uint16(4)
_BYTE: Final = np.uint16(0xFF)
_EIGHTS: Final = np.uint8(0x88)  # plus 8, in four bits of two's complement


def pack(values: Array, *, low_first: bool = True) -> Array:
    """Integers in [-8, 7], [rows, columns] with an even number of columns, as uint8 [rows, columns / 2]."""
    packed = np.empty((values.shape[0], values.shape[1] // 2), dtype=np.uint8)
    for rows in chunks(*values.shape):
        pairs = np.ascontiguousarray(values[rows], dtype=np.int8).view(_PAIR)
        pairs = (pairs if low_first else pairs.byteswap()) & _NIBBLES
        pairs |= pairs >> _FOUR
        packed[rows] = pairs & _BYTE
        packed[rows] ^= _EIGHTS
    return packed


def unpack(packed: Array, *, low_first: bool = True) -> Array:
    """The int8 values [rows, columns] of `pack`'s bytes."""
    pairs = packed.astype(_PAIR, order="C")
    pairs |= pairs << _FOUR
    pairs &= _NIBBLES
    values: Array = (pairs if low_first else pairs.byteswap(inplace=True)).view(np.int8)
    values -= np.int8(8)
    return values


def fits(values: Array) -> bool:
    """Whether all integers of an array (any shape) lie in [-8, 7]."""
    return values.size == 0 or (int(values.min()) >= LOWEST and int(values.max()) <= HIGHEST)


BYTE: Final = 8


def unpacked(packed: Array, bits: int) -> Array:
    """The integers [rows, columns] of packed bytes, int8 but for whole bytes, which are what they are.

    Of two bits the first column is the lowest, of four the first is the high nibble.
    """
    if bits == BYTE:
        return packed
    shifts = range(0, BYTE, bits) if bits == 2 else (4, 0)
    values = np.stack([(packed >> np.uint8(shift)) & np.uint8((1 << bits) - 1) for shift in shifts], axis=-1)
    return values.astype(np.int8).reshape(len(packed), -1) - np.int8(1 << (bits - 1))
