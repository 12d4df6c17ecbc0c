"""Bytes of a file as torch tensors."""

import math
import warnings
from collections.abc import Callable

import torch

from vkfuse.errors import FormatError
from vkfuse.program.tensors import TORCH_TYPES
from vkfuse.pte.enums import ScalarType, VkDataType
from vkfuse.pte.place import Place

Reading = Callable[[torch.Tensor, tuple[int, ...]], torch.Tensor]


def scalar_dtype(kind: ScalarType | int, where: Place | str) -> torch.dtype:
    """Return torch's type; FormatError where torch has none."""
    try:
        return TORCH_TYPES[ScalarType(kind)]
    except (KeyError, ValueError):
        raise FormatError(f"element type {kind} cannot be executed", field=str(where)) from None


def vulkan_dtype(kind: VkDataType, where: Place | str) -> torch.dtype:
    """Return torch's type; FormatError for UNSET."""
    if kind.scalar is None:
        raise FormatError(f"element type {kind.name} cannot be executed", field=str(where))
    return TORCH_TYPES[kind.scalar]


def tensor_of(
    data: memoryview, dtype: torch.dtype, sizes: tuple[int, ...], dim_order: tuple[int, ...] | None = None
) -> torch.Tensor:
    """View bytes of the mapped file as a tensor, without a copy; it must not be written to.

    The bytes lie in `dim_order`, outermost first; FormatError where they are too few.
    """
    count = math.prod(sizes)
    if count * dtype.itemsize > len(data):
        raise FormatError(f"{len(data)} bytes for {count} values of {dtype}")
    if count == 0:
        return torch.empty(sizes, dtype=dtype)
    return laid_out(_values(data, dtype, count).reshape(sizes), dim_order or tuple(range(len(sizes))))


def as_they_lie(value: torch.Tensor, order: tuple[int, ...]) -> torch.Tensor:
    """Return the elements in the sequence in which they lie in memory, `order` outermost first, as the same shape."""
    return value.permute(order).reshape(value.shape)


def laid_out(value: torch.Tensor, order: tuple[int, ...]) -> torch.Tensor:
    """Return what elements that were stored one after the other are for one who reads them in `order`."""
    stored = value.reshape([value.shape[axis] for axis in order])
    return stored.permute([order.index(axis) for axis in range(len(order))])


def _values(data: memoryview, dtype: torch.dtype, count: int) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given buffer is not writable", UserWarning)
        return torch.frombuffer(data, dtype=dtype, count=count)


def undefined(shape: tuple[int, ...] | torch.Size, dtype: torch.dtype) -> torch.Tensor:
    """Values that the device leaves unwritten: NaN, or the least value of an integer type."""
    if dtype.is_floating_point:
        return torch.full(shape, math.nan, dtype=dtype)
    return torch.full(shape, 0 if dtype is torch.bool else torch.iinfo(dtype).min, dtype=dtype)
