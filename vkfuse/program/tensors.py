"""What a program's tensors are to a runtime, without a guard on their sizes."""

import sys
from typing import Any, Final

import torch

from vkfuse.pte.enums import VkDataType
from vkfuse.runtime.operands import Tensor

# Types in a delegate, where 64 bits become 32; others are UNSET, which no shader has.
_DTYPES: Final = {
    torch.bool: VkDataType.BOOL,
    torch.uint8: VkDataType.UINT8,
    torch.int8: VkDataType.INT8,
    torch.int32: VkDataType.INT32,
    torch.int64: VkDataType.INT32,
    torch.float16: VkDataType.FLOAT16,
    torch.float32: VkDataType.FLOAT32,
    torch.float64: VkDataType.FLOAT32,
}


def described(value: torch.Tensor, *, constant: bool = False) -> Tensor:
    """`value` by its greatest sizes, its storage open."""
    order = tuple(value.dim_order())
    return Tensor(
        dims=tuple(_greatest(size) for size in value.shape),
        dtype=_DTYPES.get(value.dtype, VkDataType.UNSET),
        constant=constant,
        dynamic=frozenset(at for at, size in enumerate(value.shape) if not isinstance(size, int)),
        order=() if order == tuple(range(value.dim())) else order,
    )


def _greatest(size: Any) -> int:
    """The upper bound of a size, without a guard on it."""
    if isinstance(size, int):
        return size
    upper = size.node.shape_env.bound_sympy(size.node.expr).upper
    return int(upper) if upper.is_Integer else sys.maxsize
