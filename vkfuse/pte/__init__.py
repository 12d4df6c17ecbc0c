"""The deployed file format, read without torch and without trust.

`read_pte(path)` maps a .pte, `read_ptd(path)` its external data, `vulkan_graphs(pte)` decodes its Vulkan
delegates.
"""

from vkfuse.pte.model import PteFile
from vkfuse.pte.ptd import read_ptd
from vkfuse.pte.reader import parse_pte, read_pte
from vkfuse.pte.vulkan import Graphs, VulkanGraph, read_vulkan_graph, vulkan_graphs

__all__ = [
    "Graphs",
    "PteFile",
    "VulkanGraph",
    "parse_pte",
    "read_ptd",
    "read_pte",
    "read_vulkan_graph",
    "vulkan_graphs",
]
