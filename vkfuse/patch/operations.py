"""What operators compute of constants, on numpy arrays: those whose result is the same to the bit wherever it is computed.

Arguments are those of the operator's schema; tensors are arrays, lists tuples. Integers are exact, and float32 sums,
products and quotients are rounded once by IEEE 754.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from vkfuse.tables.floats import Array

Operation = Callable[..., Array]


def _dequantized(
    values: Array, block: Sequence[int], scales: Array, points: Array | None, *_: object
) -> Array:
    """``torchao.dequantize_affine``: ``(value - zero point) * scale``, one of both for each block."""
    blocks = [size if part == -1 else part for size, part in zip(values.shape, block, strict=True)]
    shape = [size // part for size, part in zip(values.shape, blocks, strict=True)]
    centred = values.astype(np.int32)
    if points is not None:
        centred -= _spread(points.astype(np.int32), shape, blocks)
    floats: Array = centred.astype(scales.dtype) * _spread(scales, shape, blocks)
    return floats


def _by_channel(values: Array, scales: Array, points: Array | None, axis: int, *_: object) -> Array:
    """``quantized_decomposed.dequantize_per_channel``: one scale and zero point for each index of an axis."""
    block = [1 if at == axis % values.ndim else size for at, size in enumerate(values.shape)]
    return _dequantized(values, block, scales, points)


def _by_group(values: Array, scales: Array, points: Array | None, *more: Any) -> Array:
    """``quantized_decomposed.dequantize_per_channel_group``: one of both for `group_size` columns of a row."""
    return _dequantized(values, [1, more[3]], scales, points)


def _spread(parameter: Array, shape: Sequence[int], blocks: Sequence[int]) -> Array:
    """One number a block as one a value."""
    spread = parameter.reshape(shape)
    for axis, times in enumerate(blocks):
        spread = spread.repeat(times, axis=axis)
    return spread


def _added(one: Any, other: Any, alpha: Any = 1) -> Array:
    return np.asarray(one + _times(other, alpha))


def _subtracted(one: Any, other: Any, alpha: Any = 1) -> Array:
    return np.asarray(one - _times(other, alpha))


def _times(other: Any, alpha: Any) -> Any:
    """A multiple; times one is no rounding."""
    if alpha != 1:
        raise ValueError("a factor, whose product would be rounded")
    return other


def _sliced(
    values: Array, axis: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Array:
    parts = [slice(None)] * values.ndim
    parts[axis] = slice(start, end, step)
    return values[tuple(parts)]


def _expanded(values: Array, sizes: Sequence[int], *_: object) -> Array:
    padded = values.reshape((1,) * (len(sizes) - values.ndim) + values.shape)
    return np.broadcast_to(padded, [o if n == -1 else n for o, n in zip(padded.shape, sizes, strict=True)])


def _same(values: Array, *_: object) -> Array:
    """A copy, in another type or order: the result is made of the type that the file says."""
    return values


OPERATIONS: Final[Mapping[str, Operation]] = {
    "torchao.dequantize_affine": _dequantized,
    "quantized_decomposed.dequantize_per_channel": _by_channel,
    "quantized_decomposed.dequantize_per_channel_group": _by_group,
    "aten.add": _added,
    "aten.sub": _subtracted,
    "aten.mul": np.multiply,
    "aten.div": np.divide,
    "aten.neg": np.negative,
    "aten.logical_not": np.logical_not,
    "aten.view_copy": np.reshape,
    "aten.permute_copy": np.transpose,
    "aten.t_copy": np.transpose,
    "aten.unsqueeze_copy": np.expand_dims,
    "aten.slice_copy": _sliced,
    "aten.expand_copy": _expanded,
    "aten.clone": _same,
    "aten._to_copy": _same,
    "dim_order_ops._to_dim_order_copy": _same,
    "dim_order_ops._clone_dim_order": _same,
}


def operation_of(name: str) -> Operation | None:
    """The operation of an operator of a delegate (`aten.sub.Tensor`) or of a CPU kernel (`aten::sub.out`)."""
    base = ".".join(name.replace("::", ".").split(".")[:2])
    return OPERATIONS.get(base)
