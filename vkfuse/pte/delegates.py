"""The Vulkan delegates of a file, each at its place, and the storage of tensors that leave it open."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from vkfuse.pte.enums import VkStorageType
from vkfuse.pte.model import Delegate, PteFile, once_a_file
from vkfuse.pte.place import Place
from vkfuse.pte.values import Extent
from vkfuse.pte.vulkan import VkTensor, VulkanGraph, vulkan_graphs

_STORAGES: Final = (VkStorageType.BUFFER, VkStorageType.TEXTURE_3D, VkStorageType.TEXTURE_2D)


@dataclass(frozen=True, slots=True, kw_only=True)
class VulkanDelegate:
    """A Vulkan delegate: its graph, where it is, its bytes, and the storage of tensors that leave it open."""

    place: Place
    graph: VulkanGraph
    at: Extent
    default_storage: VkStorageType

    def storage(self, tensor: VkTensor) -> VkStorageType:
        """Return the GPU resource of a tensor."""
        return self.default_storage if tensor.storage is VkStorageType.DEFAULT_STORAGE else tensor.storage


@once_a_file
def vulkan_delegates(pte: PteFile) -> Mapping[Place, VulkanDelegate]:
    """Return the Vulkan delegates in the order of the file. FormatError where a blob is malformed."""
    graphs = vulkan_graphs(pte)
    return MappingProxyType(
        {
            place: VulkanDelegate(
                place=place,
                graph=graphs[place],
                at=delegate.processed_at,
                default_storage=_default_storage(delegate),
            )
            for method in pte.methods
            for index, delegate in enumerate(method.delegates)
            if (place := Place(method.name, index)) in graphs
        }
    )


def _default_storage(delegate: Delegate) -> VkStorageType:
    """Return the runtime's default, which an option may override."""
    storage = VkStorageType.TEXTURE_3D  # GraphConfig::GraphConfig
    for spec in delegate.compile_specs:
        if spec.key == "storage_type_override" and len(spec.value) == 4:
            number = int.from_bytes(spec.value, "little")
            storage = next((kind for kind in _STORAGES if kind == number), storage)
    return storage
