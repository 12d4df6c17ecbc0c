"""The enumerations of the program and Vulkan schemas (scalar_type.fbs, program.fbs, Vulkan's schema.fbs)."""

from enum import IntEnum
from typing import Final


class ScalarType(IntEnum):
    """Element types of a program's tensors."""

    BYTE = 0
    CHAR = 1
    SHORT = 2
    INT = 3
    LONG = 4
    HALF = 5
    FLOAT = 6
    DOUBLE = 7
    BOOL = 11
    QINT8 = 12
    QUINT8 = 13
    QINT32 = 14
    BFLOAT16 = 15
    QUINT4X2 = 16
    QUINT2X4 = 17
    BITS16 = 22
    FLOAT8E5M2 = 23
    FLOAT8E4M3FN = 24
    FLOAT8E5M2FNUZ = 25
    FLOAT8E4M3FNUZ = 26
    UINT16 = 27
    UINT32 = 28
    UINT64 = 29

    @property
    def bytes(self) -> int:
        """Bytes of one element."""
        return _WIDE.get(self, 1)

    @property
    def label(self) -> str:
        """The type as PyTorch names it (`float32`)."""
        return _LABELS.get(self, self.name.lower())


_WIDE: Final = {
    ScalarType.SHORT: 2,
    ScalarType.INT: 4,
    ScalarType.LONG: 8,
    ScalarType.HALF: 2,
    ScalarType.FLOAT: 4,
    ScalarType.DOUBLE: 8,
    ScalarType.QINT32: 4,
    ScalarType.BFLOAT16: 2,
    ScalarType.BITS16: 2,
    ScalarType.UINT16: 2,
    ScalarType.UINT32: 4,
    ScalarType.UINT64: 8,
}
_LABELS: Final = {
    ScalarType.BYTE: "uint8",
    ScalarType.CHAR: "int8",
    ScalarType.SHORT: "int16",
    ScalarType.INT: "int32",
    ScalarType.LONG: "int64",
    ScalarType.HALF: "float16",
    ScalarType.FLOAT: "float32",
    ScalarType.DOUBLE: "float64",
}


class ShapeDynamism(IntEnum):
    """What a tensor's sizes mean: the shape, or its upper bound."""

    STATIC = 0
    DYNAMIC_BOUND = 1
    DYNAMIC_UNBOUND = 2


class TensorDataLocation(IntEnum):
    """Where a constant's bytes are: in the .pte, or in a .ptd."""

    SEGMENT = 0
    EXTERNAL = 1


class DataLocation(IntEnum):
    """Where a delegate's bytes are."""

    INLINE = 0
    SEGMENT = 1


class DeviceType(IntEnum):
    """Where a buffer is allocated."""

    CPU = 0
    CUDA = 1


class VkDataType(IntEnum):
    """Element types of a Vulkan graph."""

    BOOL = 0
    UINT8 = 1
    INT8 = 2
    INT32 = 3
    FLOAT16 = 4
    FLOAT32 = 5
    FLOAT64 = 6
    INT64 = 7
    UNSET = 127

    @property
    def bytes(self) -> int:
        """Bytes of one element; 0 for UNSET."""
        return (1, 1, 1, 4, 2, 4, 8, 8)[self] if self is not VkDataType.UNSET else 0

    @property
    def label(self) -> str:
        """The type as PyTorch names it (`float32`)."""
        return self.name.lower()


class VkStorageType(IntEnum):
    """The GPU resource of a tensor."""

    BUFFER = 0
    TEXTURE_3D = 1
    TEXTURE_2D = 2
    DEFAULT_STORAGE = 255


class VkMemoryLayout(IntEnum):
    """Which axis is packed into texels, or which int8 block layout is used."""

    TENSOR_WIDTH_PACKED = 0
    TENSOR_HEIGHT_PACKED = 1
    TENSOR_CHANNELS_PACKED = 2
    PACKED_INT8_4W4C = 3
    PACKED_INT8_4H4W = 4
    PACKED_INT8_4W = 5
    PACKED_INT8_4C = 6
    PACKED_INT8_4C1W = 8
    PACKED_INT8_CONV2D = 9
    DEFAULT_LAYOUT = 255
