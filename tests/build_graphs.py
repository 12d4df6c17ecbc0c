"""Small Vulkan graphs in memory, as lint reads them."""

from vkfuse.pte.enums import VkMemoryLayout, VkStorageType
from vkfuse.pte.sites import Site
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
    return Site(where="forward/0", graph=graph, default_storage=VkStorageType.TEXTURE_3D)
