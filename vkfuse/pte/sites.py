"""A Vulkan delegate with its place, and the storage of tensors that leave it open."""

from dataclasses import dataclass
from typing import Final

from vkfuse.pte.enums import VkStorageType
from vkfuse.pte.model import Delegate
from vkfuse.pte.vulkan import VkTensor, VulkanGraph

_STORAGES: Final = (VkStorageType.BUFFER, VkStorageType.TEXTURE_3D, VkStorageType.TEXTURE_2D)


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A Vulkan delegate: its graph, where it is, and the storage of tensors that leave it open."""

    where: str
    graph: VulkanGraph
    default_storage: VkStorageType

    def storage(self, tensor: VkTensor) -> VkStorageType:
        """Return the GPU resource of a tensor."""
        return self.default_storage if tensor.storage is VkStorageType.DEFAULT_STORAGE else tensor.storage


def site_of(delegate: Delegate, graph: VulkanGraph, where: str) -> Site:
    """Return the delegate at its place; an option may override the runtime's default storage."""
    storage = VkStorageType.TEXTURE_3D  # GraphConfig::GraphConfig
    for spec in delegate.compile_specs:
        if spec.key == "storage_type_override" and len(spec.value) == 4:
            number = int.from_bytes(spec.value, "little")
            storage = next((kind for kind in _STORAGES if kind == number), storage)
    return Site(where=where, graph=graph, default_storage=storage)
