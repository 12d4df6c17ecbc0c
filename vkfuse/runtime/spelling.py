"""How shader names are put together (runtime/graph/ops/utils/ShaderNameUtils.cpp)."""

from collections.abc import Callable, Iterator
from typing import Final

from vkfuse.pte.enums import VkDataType, VkMemoryLayout, VkStorageType
from vkfuse.runtime.operands import Operands, Tensor
from vkfuse.runtime.record import Namer

FLOATS: Final = (VkDataType.FLOAT16, VkDataType.FLOAT32)
PACKED_INT8: Final = frozenset(layout for layout in VkMemoryLayout if layout.name.startswith("PACKED_INT8"))
WIDTH: Final = VkMemoryLayout.TENSOR_WIDTH_PACKED
HEIGHT: Final = VkMemoryLayout.TENSOR_HEIGHT_PACKED
CHANNELS: Final = VkMemoryLayout.TENSOR_CHANNELS_PACKED
BY_WIDTH: Final = frozenset({WIDTH, VkMemoryLayout.DEFAULT_LAYOUT})

_DTYPES: Final = {
    VkDataType.BOOL: "uint8",
    VkDataType.UINT8: "uint8",
    VkDataType.INT8: "int8",
    VkDataType.INT32: "int32",
    VkDataType.INT64: "int64",
    VkDataType.FLOAT16: "half",
    VkDataType.FLOAT32: "float",
    VkDataType.FLOAT64: "double",
    VkDataType.UNSET: "unset",
}
_STORAGES: Final = {
    VkStorageType.BUFFER: "buffer",
    VkStorageType.TEXTURE_3D: "texture3d",
    VkStorageType.TEXTURE_2D: "texture2d",
}


def type_name(dtype: VkDataType) -> str:
    """Element type, as add_dtype_suffix spells it."""
    return _DTYPES[dtype]


def dtype(tensor: Tensor) -> str:
    """Element type; four 8-bit integers packed into one word are spelled as the word (kInt8x4)."""
    return "int32" if tensor.layout in PACKED_INT8 else type_name(tensor.dtype)


def storage(tensor: Tensor) -> str:
    """Storage, as add_storage_type_suffix spells it; it must be decided."""
    return _STORAGES[tensor.storage]


def stored(tensor: Tensor) -> str:
    """`texture3d_float`."""
    return f"{storage(tensor)}_{dtype(tensor)}"


def by_storage_and_dtype(shader: str) -> Namer:
    """Name after storage and type of the output: the usual form."""
    return _by_output(lambda out: f"{shader}_{stored(out)}")


def by_dtype_and_storage(shader: str) -> Namer:
    """Name after type and storage of the output."""
    return _by_output(lambda out: f"{shader}_{dtype(out)}_{storage(out)}")


def by_dtype(shader: str) -> Namer:
    """Name after the type of the output, for operators of textures."""
    return _by_output(lambda out: f"{shader}_{dtype(out)}")


def _by_output(spell: Callable[[Tensor], str]) -> Namer:
    """One name, of the output."""

    def names(ops: Operands) -> Iterator[str]:
        if ops.out:
            yield spell(ops.out)

    return names
