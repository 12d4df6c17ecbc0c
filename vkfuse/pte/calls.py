"""One operator call of a Vulkan delegate, as lint sees it."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Final

from vkfuse.pte.enums import VkDataType, VkStorageType
from vkfuse.pte.findings import Effect, Finding
from vkfuse.pte.model import Delegate
from vkfuse.pte.values import Bool, Int, String
from vkfuse.pte.vulkan import IntList, OperatorCall, ValueList, VkTensor, VkValue, VulkanGraph

# add_dtype_suffix and add_storage_type_suffix in runtime/graph/ops/utils/ShaderNameUtils.cpp.
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


def dtype_suffix(dtype: VkDataType) -> str:
    """How shader names spell an element type."""
    return _DTYPES[dtype]


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A Vulkan delegate: its graph, where it is, and the storage of tensors that leave it open."""

    where: str
    graph: VulkanGraph
    default_storage: VkStorageType

    def storage(self, tensor: VkTensor) -> VkStorageType:
        """Return the GPU resource of a tensor."""
        return self.default_storage if tensor.storage is VkStorageType.DEFAULT_STORAGE else tensor.storage

    def storage_suffix(self, tensor: VkTensor) -> str:
        """How shader names spell a tensor's storage."""
        return _STORAGES[self.storage(tensor)]


def site_of(delegate: Delegate, graph: VulkanGraph, where: str) -> Site:
    """Return the delegate as lint sees it; an option may override the runtime's default storage."""
    storage = VkStorageType.TEXTURE_3D  # GraphConfig::GraphConfig
    for spec in delegate.compile_specs:
        if spec.key == "storage_type_override" and len(spec.value) == 4:
            number = int.from_bytes(spec.value, "little")
            storage = next((kind for kind in _STORAGES if kind == number), storage)
    return Site(where=where, graph=graph, default_storage=storage)


@dataclass(frozen=True)
class Call:
    """One operator call and its arguments."""

    site: Site
    call: OperatorCall

    @property
    def name(self) -> str:
        """The operator."""
        return self.call.name

    @cached_property
    def arguments(self) -> tuple[VkValue, ...]:
        """The values of the arguments."""
        return tuple(self.site.graph.values[index] for index in self.call.args)

    def value(self, position: int) -> VkValue:
        """Return an argument, None where there are fewer."""
        return self.arguments[position] if -len(self.arguments) <= position < len(self.arguments) else None

    def tensor(self, position: int) -> VkTensor | None:
        """Return an argument that is a tensor."""
        value = self.value(position)
        return value if isinstance(value, VkTensor) else None

    def integer(self, position: int) -> int | None:
        """Return an argument that is an integer."""
        value = self.value(position)
        return value.value if isinstance(value, Int) else None

    def flag(self, position: int) -> bool | None:
        """Return an argument that is a boolean."""
        value = self.value(position)
        return value.value if isinstance(value, Bool) else None

    def text(self, position: int) -> str | None:
        """Return an argument that is a string."""
        value = self.value(position)
        return value.value if isinstance(value, String) else None

    def integers(self, position: int) -> tuple[int, ...] | None:
        """Return an argument that is a list of integers."""
        value = self.value(position)
        return value.items if isinstance(value, IntList) else None

    def members(self, position: int) -> tuple[int, ...] | None:
        """Return an argument that is a list of values."""
        value = self.value(position)
        return value.ids if isinstance(value, ValueList) else None

    def tensors(self) -> Iterator[VkTensor]:
        """Yield the arguments that are tensors."""
        yield from (value for value in self.arguments if isinstance(value, VkTensor))

    def finding(self, code: str, effect: Effect, hint: str) -> Finding:
        """Return a finding about this operator."""
        return Finding(
            kind="operator",
            name=self.name,
            where=self.site.where,
            code=code,
            hint=hint,
            effect=effect,
            operator=self.name,
        )


def rows(dims: tuple[int, ...]) -> int:
    """Product of all sizes but the last: the rows of a matrix of any rank."""
    return prod(dims[:-1])
