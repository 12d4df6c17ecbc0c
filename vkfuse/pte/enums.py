"""The enumerations of the program and Vulkan schemas (scalar_type.fbs, program.fbs, Vulkan's schema.fbs)."""

from enum import IntEnum
from typing import Self


class ScalarType(IntEnum):
    """Element types of a program's tensors: the bytes of one element, and the name that PyTorch has for it (`float32`)."""

    bytes: int
    label: str

    BYTE = 0, 1, "uint8"
    CHAR = 1, 1, "int8"
    SHORT = 2, 2, "int16"
    INT = 3, 4, "int32"
    LONG = 4, 8, "int64"
    HALF = 5, 2, "float16"
    FLOAT = 6, 4, "float32"
    DOUBLE = 7, 8, "float64"
    BOOL = 11, 1, "bool"
    QINT8 = 12, 1, "qint8"
    QUINT8 = 13, 1, "quint8"
    QINT32 = 14, 4, "qint32"
    BFLOAT16 = 15, 2, "bfloat16"
    QUINT4X2 = 16, 1, "quint4x2"
    QUINT2X4 = 17, 1, "quint2x4"
    BITS16 = 22, 2, "bits16"
    FLOAT8E5M2 = 23, 1, "float8e5m2"
    FLOAT8E4M3FN = 24, 1, "float8e4m3fn"
    FLOAT8E5M2FNUZ = 25, 1, "float8e5m2fnuz"
    FLOAT8E4M3FNUZ = 26, 1, "float8e4m3fnuz"
    UINT16 = 27, 2, "uint16"
    UINT32 = 28, 4, "uint32"
    UINT64 = 29, 8, "uint64"

    def __new__(cls, number: int, size: int = 1, label: str = "") -> Self:
        """A member that is its number."""
        member = int.__new__(cls, number)
        member._value_, member.bytes, member.label = number, size, label
        return member


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
    """Element types of a Vulkan graph, and what each is in a program: `scalar`, None for UNSET."""

    scalar: ScalarType | None

    BOOL = 0, ScalarType.BOOL
    UINT8 = 1, ScalarType.BYTE
    INT8 = 2, ScalarType.CHAR
    INT32 = 3, ScalarType.INT
    FLOAT16 = 4, ScalarType.HALF
    FLOAT32 = 5, ScalarType.FLOAT
    FLOAT64 = 6, ScalarType.DOUBLE
    INT64 = 7, ScalarType.LONG
    UNSET = 127

    def __new__(cls, number: int, scalar: ScalarType | None = None) -> Self:
        """A member that is its number."""
        member = int.__new__(cls, number)
        member._value_, member.scalar = number, scalar
        return member

    @property
    def bytes(self) -> int:
        """Bytes of one element; 0 for UNSET."""
        return 0 if self.scalar is None else self.scalar.bytes

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
