"""The blob of a Vulkan delegate written from its graph: header, graph flatbuffer, inline constants and shaders.

Source: serialization/vulkan_graph_serialize.py of backends/vulkan in ExecuTorch 1.5.
"""

from typing import Final

from vkfuse.errors import FormatError
from vkfuse.multiples import round_up
from vkfuse.pages import address
from vkfuse.pte.builder import build
from vkfuse.pte.layout import GRAPH_TYPES, VULKAN
from vkfuse.pte.records import Node
from vkfuse.pte.vulkan import HEADER, NAMED, Constant, VulkanGraph

_ALIGNMENT: Final = 16


def write_vulkan(graph: VulkanGraph, *, as_lowered: bool = False) -> bytes:
    """Return a delegate's `processed` bytes; a constant with bytes of the blob is written with its `data`.

    It is smaller than what ExecuTorch makes with flatc, unless it is to be `as_lowered`.
    FormatError where the graph has fields that the schema does not know.
    """
    if graph.unread:
        raise FormatError("a field of a newer schema, which would be lost", field=graph.unread)
    inline = _Inline()
    flatbuffer = build(
        _graph(graph, inline),
        VULKAN,
        {"value": GRAPH_TYPES},
        b"VK00",
        shared=not as_lowered,
        by_size=as_lowered,
    )
    start = round_up(HEADER.size, _ALIGNMENT)
    data = start + round_up(len(flatbuffer), _ALIGNMENT)
    header = HEADER.pack(bytes(4), b"VH00", HEADER.size, start, len(flatbuffer), data, len(inline.data))
    return header.ljust(start, b"\0") + flatbuffer.ljust(data - start, b"\0") + bytes(inline.data)


class _Inline:
    """The bytes behind a graph; what is one place in memory is written once."""

    def __init__(self) -> None:
        self.data = bytearray()
        self._offsets: dict[tuple[int, int], int] = {}

    def offset(self, data: memoryview) -> int:
        """Append bytes and return where they start."""
        key = address(data), len(data)
        if not data or key not in self._offsets:
            self._offsets[key] = len(self.data)
            self.data += data
            self.data += bytes(round_up(len(data), _ALIGNMENT) - len(data))
        return self._offsets[key]


def _graph(graph: VulkanGraph, inline: _Inline) -> Node:
    """Return the root table."""
    return Node(
        "VkGraph",
        {
            "version": graph.version,
            "chain": [*map(Node.of, graph.chain)],
            "values": [Node("VkValue", {"value": Node.of(value)}) for value in graph.values],
            "input_ids": graph.input_ids,
            "output_ids": graph.output_ids,
            "constants": [_bytes(constant, inline) for constant in graph.constants],
            "shaders": [_bytes(shader, inline) for shader in graph.shaders],
            "storage_type_override": graph.storage_override,
            "memory_layout_override": graph.layout_override,
        },
    )


def _bytes(constant: Constant, inline: _Inline) -> Node:
    """Return where bytes are: behind the graph, or in named data."""
    if constant.named:
        offset, length = NAMED, constant.length
    else:
        data = memoryview(b"") if constant.data is None else constant.data
        offset, length = inline.offset(data), len(data)
    return Node("VkBytes", {"offset": offset, "length": length, "named_key": constant.named_key})
