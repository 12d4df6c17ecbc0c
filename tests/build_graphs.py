"""Small Vulkan graphs in memory, as lint reads them."""

from vkfuse.pte.delegates import VulkanDelegate
from vkfuse.pte.enums import VkMemoryLayout, VkStorageType
from vkfuse.pte.place import Place
from vkfuse.pte.values import Extent
from vkfuse.pte.vulkan import VulkanGraph

_NOWHERE = Extent(0, 0)


def site(values=(), chain=(), input_ids=(), output_ids=()):
    """A delegate with these values."""
    graph = VulkanGraph(
        version="0",
        chain=tuple(chain),
        values=tuple(values),
        input_ids=tuple(input_ids),
        output_ids=tuple(output_ids),
        constants=(),
        shaders=(),
        storage_override=VkStorageType.DEFAULT_STORAGE,
        layout_override=VkMemoryLayout.DEFAULT_LAYOUT,
        header_at=_NOWHERE,
        flatbuffer_at=_NOWHERE,
        bytes_at=_NOWHERE,
    )
    return VulkanDelegate(
        place=Place("forward", 0), graph=graph, at=_NOWHERE, default_storage=VkStorageType.TEXTURE_3D
    )
