"""Integers of two, four or eight bits in bytes, as ExecuTorch's CPU lookups store them.

Source: kernels/quantized/cpu/embeddingxb.cpp and op_embedding.cpp of ExecuTorch 1.5.
"""

from typing import Final

import numpy as np

from vkfuse.tables.floats import Array

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
