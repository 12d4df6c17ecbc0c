"""The operator in plain numpy, one element at a time where it matters: what every variant must compute."""

from typing import Any

import numpy as np
import numpy.typing as npt

from vkfuse.glsl.layouts import Int8, Int32, numpy_type
from vkfuse.glsl.variants import DType


def embedding(
    values: Int8, scales: npt.NDArray[Any], group_size: int, indices: Int32, dtype: DType
) -> npt.NDArray[Any]:
    """Rows `indices` of values [V, D] times scales [V, D/group_size]: [*indices.shape, D].

    The product is a float32; a half output is its nearest half, ties to even. A row outside the table is zero.
    """
    vocab, columns = values.shape
    group = np.arange(columns) // group_size
    out = np.zeros((*indices.shape, columns), np.float32)
    for position in np.ndindex(indices.shape):
        row = int(indices[position])
        if 0 <= row < vocab:
            with np.errstate(invalid="ignore"):  # zero times an infinite scale
                out[position] = values[row].astype(np.float32) * scales[row].astype(np.float32)[group]
    return out.astype(numpy_type(dtype))
