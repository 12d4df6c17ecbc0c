"""How the runtime holds the operands on the device: packed weights, scales, indices and outputs, as numpy arrays.

docs/shader.md draws the layouts. Sources: the runtime's `pack_q4_linear_weight` shader and `prepack_standard`.
"""

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from vkfuse.glsl.variants import ROWS_PER_BLOCK, VECTOR, DType, WeightLayout
from vkfuse.multiples import ceil_div, round_up

Int8: TypeAlias = npt.NDArray[np.int8]
Int32: TypeAlias = npt.NDArray[np.int32]
Words: TypeAlias = npt.NDArray[np.uint32]
Array: TypeAlias = npt.NDArray[Any]

BUFFER_ALIGNMENT = 16  # the runtime rounds allocations up to a texel


def numpy_type(dtype: DType) -> type[np.float16] | type[np.float32]:
    """Type in numpy for a dtype of the runtime."""
    return np.float16 if dtype is DType.HALF else np.float32


def pack_weight(values: Int8, layout: WeightLayout) -> Words:
    """The device's words for values in -8..7 of shape [V, D]; see `pack_flat` and `pack_linear`."""
    return pack_linear(values) if layout.is_linear else pack_flat(values)


def pack_flat(values: Int8) -> Words:
    """[V, D] -> [V, D/8]: row-major bytes of two columns, the even column in the high nibble, value + 8."""
    nibbles = _nibbles(values)
    packed = nibbles[:, 0::2] << 4 | nibbles[:, 1::2]
    return np.ascontiguousarray(packed).view(np.uint32)


def pack_linear(values: Int8) -> Words:
    """[V, D] -> [ceil(V/8), D/4, 4]: word r of a block holds rows r (low nibbles) and r + 4 (high), byte j column j.

    Rows that fill the last block hold zeros.
    """
    vocab, columns = values.shape
    blocks = ceil_div(vocab, ROWS_PER_BLOCK)
    padded = np.zeros((blocks * ROWS_PER_BLOCK, columns), np.int8)
    padded[:vocab] = values
    nibbles = _nibbles(padded).reshape(blocks, 2, 4, columns // VECTOR, VECTOR)
    low, high = nibbles[:, 0], nibbles[:, 1]
    packed = (low | high << 4).transpose(0, 2, 1, 3)
    return np.ascontiguousarray(packed).view(np.uint32)[..., 0]


def index_texels(indices: Int32) -> Int32:
    """Indices of up to three dimensions as texels [depth, height, ceil(width/4), 4]; unused components are -1."""
    shape = (1,) * (3 - indices.ndim) + indices.shape
    depth, height, width = shape
    texels = np.full((max(1, depth), max(1, height), max(1, ceil_div(width, VECTOR)) * VECTOR), -1, np.int32)
    texels[:depth, :height, :width] = indices.reshape(shape)
    return texels.reshape(*texels.shape[:2], -1, VECTOR)


def padded_bytes(data: Array) -> npt.NDArray[np.uint8]:
    """`data` as bytes, filled with 0xFF up to what the runtime allocates for a buffer."""
    raw = np.ascontiguousarray(data).view(np.uint8).reshape(-1)
    size = max(BUFFER_ALIGNMENT, round_up(raw.size, BUFFER_ALIGNMENT))
    padded = np.full(size, 0xFF, np.uint8)
    padded[: raw.size] = raw
    return padded


def _nibbles(values: Int8) -> npt.NDArray[np.uint8]:
    return (values + 8).astype(np.uint8)
