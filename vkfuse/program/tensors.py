"""What a program's tensors are to a runtime, without a guard on their sizes, and to numpy."""

import sys
from typing import Any, Final

import torch
from torch import fx
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from vkfuse.pte.enums import ScalarType, VkDataType
from vkfuse.runtime.operands import Tensor
from vkfuse.tables.floats import NUMPY, Array

TORCH_TYPES: Final[dict[ScalarType, torch.dtype]] = {kind: getattr(torch, kind.label) for kind in NUMPY}
_SCALARS: Final = {dtype: kind for kind, dtype in TORCH_TYPES.items()}
# Types in a delegate, where 64 bits become 32; others are UNSET, which no shader has.
_DTYPES: Final = {
    **{TORCH_TYPES[kind.scalar]: kind for kind in VkDataType if kind.scalar is not None},
    torch.int64: VkDataType.INT32,
    torch.float64: VkDataType.FLOAT32,
}


def described(value: torch.Tensor, *, constant: bool = False) -> Tensor:
    """`value` by its greatest sizes, its storage open."""
    order = tuple(value.dim_order())
    return Tensor(
        dims=tuple(greatest(size) for size in value.shape),
        dtype=_DTYPES.get(value.dtype, VkDataType.UNSET),
        constant=constant,
        dynamic=frozenset(at for at, size in enumerate(value.shape) if not isinstance(size, int)),
        order=() if order == tuple(range(value.dim())) else order,
    )


def greatest(size: Any) -> int:
    """Return the upper bound of a size, without a guard on it."""
    if isinstance(size, int):
        return size
    upper = size.node.shape_env.bound_sympy(size.node.expr).upper
    return int(upper) if upper.is_Integer else sys.maxsize


def array(value: torch.Tensor) -> Array:
    """`value` as numpy sees the same memory; bfloat16 is widened to float32, which is a copy."""
    plain = value.detach()
    return (plain.float() if plain.dtype is torch.bfloat16 else plain).numpy()


def tensor(value: Array) -> torch.Tensor:
    """A tensor over the memory of an array."""
    return torch.from_numpy(value)


def fake_mode(graph: fx.Graph) -> FakeTensorMode:
    """The mode in which a graph was traced."""
    values = (node.meta.get("val") for node in graph.nodes)
    return next((value.fake_mode for value in values if isinstance(value, FakeTensor)), FakeTensorMode())


def scalar_type(dtype: torch.dtype) -> ScalarType:
    """The type as the format of files numbers it."""
    return _SCALARS[dtype]


def owned(value: torch.Tensor) -> torch.Tensor:
    """`value`, contiguous over a storage of just its size: ExecuTorch writes a view's storage from its start.

    Sizes of one have the default strides too: ExecuTorch tells a weight [4, 8, 1, 1] in channels_last by them.
    """
    size, strides = value.numel() * value.element_size(), torch.empty(value.shape, device="meta").stride()
    if value.stride() == strides and value.untyped_storage().nbytes() == size:
        return value
    return value.detach().clone(memory_format=torch.contiguous_format)
