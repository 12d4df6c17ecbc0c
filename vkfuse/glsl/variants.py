"""The 24 variants of `embedding_q4gsw`: what tells them apart, their names and their bindings."""

import struct
from dataclasses import dataclass
from enum import StrEnum
from itertools import product

SHADER = "embedding_q4gsw"
COLUMNS_PER_INVOCATION = 32
VECTOR = 4  # columns of one stored vector: one texel, or one vec4 of a buffer
ROWS_PER_BLOCK = 8  # of a linear weight


def lookup_shader(*, float_scales: bool, weight: str, output: str) -> str:
    """The name that the runtime puts together in `add_embedding_q4gsw_node`.

    `weight` is the storage of a linear weight, empty for a flat one; `output` its storage and type.
    """
    linear = f"_linear_weight_{weight}" if weight else ""
    return f"{SHADER}{'_float_scales' if float_scales else ''}{linear}_{output}"


class DType(StrEnum):
    """Element types as the runtime writes them in shader names."""

    HALF = "half"
    FLOAT = "float"

    @property
    def nbytes(self) -> int:
        """Bytes of one element."""
        return 2 if self is DType.HALF else 4


class TensorStorage(StrEnum):
    """Where the output and the indices live (the storage of the graph)."""

    BUFFER = "buffer"
    TEXTURE3D = "texture3d"


class WeightLayout(StrEnum):
    """How the runtime holds the packed weight on the device (see docs/shader.md)."""

    FLAT = "flat"
    LINEAR_BUFFER = "linear-buffer"
    LINEAR_TEXTURE2D = "linear-texture2d"

    @property
    def is_linear(self) -> bool:
        """Whether the layout is the one that `linear_q4gsw` shares (`is_linear_weight=True`)."""
        return self is not WeightLayout.FLAT


class BindingKind(StrEnum):
    """Descriptor types, as ExecuTorch's generator names them (without `VK_DESCRIPTOR_TYPE_`)."""

    STORAGE_BUFFER = "STORAGE_BUFFER"
    STORAGE_IMAGE = "STORAGE_IMAGE"
    SAMPLER = "COMBINED_IMAGE_SAMPLER"
    UNIFORM_BUFFER = "UNIFORM_BUFFER"


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One compiled form of the shader; the runtime finds it by `name`."""

    scales: DType
    weight: WeightLayout
    storage: TensorStorage
    dtype: DType

    @property
    def name(self) -> str:
        """The name that the runtime looks up."""
        return lookup_shader(
            float_scales=self.scales is DType.FLOAT,
            weight=self.weight.removeprefix("linear-") if self.weight.is_linear else "",
            output=f"{self.storage}_{self.dtype}",
        )

    @property
    def bindings(self) -> tuple[BindingKind, ...]:
        """Descriptor types of out, indices, weight, scales and sizes, in binding order."""
        textures = self.storage is TensorStorage.TEXTURE3D
        return (
            BindingKind.STORAGE_IMAGE if textures else BindingKind.STORAGE_BUFFER,
            BindingKind.SAMPLER if textures else BindingKind.STORAGE_BUFFER,
            BindingKind.SAMPLER if self.weight_is_texture else BindingKind.STORAGE_BUFFER,
            BindingKind.STORAGE_BUFFER,
            BindingKind.UNIFORM_BUFFER,
        )

    @property
    def weight_is_texture(self) -> bool:
        """Whether the weight is a 2-D texture."""
        return self.weight is WeightLayout.LINEAR_TEXTURE2D

    @property
    def needs_16bit_storage(self) -> bool:
        """Whether a buffer of halves is bound (feature `storageBuffer16BitAccess`)."""
        half_output = self.dtype is DType.HALF and self.storage is TensorStorage.BUFFER
        return half_output or self.scales is DType.HALF

    def push_constants(self, group_size: int) -> bytes:
        """`int group_size; int is_linear_weight;`."""
        return struct.pack("<2i", group_size, self.weight.is_linear)


VARIANTS: tuple[Variant, ...] = tuple(
    Variant(scales=scales, weight=weight, storage=storage, dtype=dtype)
    for scales, weight, storage, dtype in product(DType, WeightLayout, TensorStorage, DType)
)


def variant_named(name: str) -> Variant:
    """The variant called `name`; KeyError when there is none."""
    return {variant.name: variant for variant in VARIANTS}[name]
