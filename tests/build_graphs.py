"""Small Vulkan graphs in memory, as lint reads them."""

from vkfuse.pte.delegates import VulkanDelegate
from vkfuse.pte.enums import VkStorageType
from vkfuse.pte.place import Place
from vkfuse.pte.values import NOWHERE
from vkfuse.pte.vulkan import VulkanGraph


def site(values=(), chain=(), input_ids=(), output_ids=()):
    """A delegate with these values."""
    graph = VulkanGraph(
        chain=tuple(chain),
        values=tuple(values),
        input_ids=tuple(input_ids),
        output_ids=tuple(output_ids),
    )
    return VulkanDelegate(
        place=Place("forward", 0), graph=graph, at=NOWHERE, default_storage=VkStorageType.TEXTURE_3D
    )
