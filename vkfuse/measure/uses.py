"""Who reads which constant of a Vulkan graph, in words."""

from collections.abc import Iterator
from typing import Final

from vkfuse.pte.vulkan import OperatorCall, ValueList, VkTensor, VulkanGraph
from vkfuse.runtime.operators import record_of
from vkfuse.runtime.operators.moves import PREPACK

_MOST_READERS: Final = 32  # kinds of readers that are remembered of one value


def short_name(operator: str) -> str:
    """`et_vk.embedding_q4gsw.default` -> `embedding_q4gsw`; other overloads keep theirs."""
    _, _, name = operator.partition(".")
    return (name or operator).removesuffix(".default")


def shape_label(dtype: str, sizes: tuple[int, ...]) -> str:
    """`float32[64,2]`: an element type and a shape."""
    return f"{dtype}[{','.join(map(str, sizes))}]"


def constant_uses(graph: VulkanGraph) -> dict[int, tuple[str, ...]]:
    """Return what reads each constant (`embedding_q4gsw weight uint8[64,32]`), by constant id."""
    prepacked = _prepacked(graph)
    readers = _readers(graph)
    uses: dict[int, dict[str, None]] = {}
    for index, value in enumerate(graph.values):
        if not isinstance(value, VkTensor) or not value.constant:
            continue
        shape = shape_label(value.dtype.label, value.dims)
        names = [name for source in (index, *prepacked.get(index, ())) for name in readers.get(source, ())]
        found = uses.setdefault(value.constant_id, {})
        found.update((f"{name} {shape}", None) for name in names or ["unused"])
    return {constant: tuple(found) for constant, found in uses.items()}


def _prepacked(graph: VulkanGraph) -> dict[int, dict[int, None]]:
    """Values that are copies of a constant on the GPU, by the constant's value index."""
    copies: dict[int, dict[int, None]] = {}
    for call in graph.chain:
        if call.name == PREPACK and len(call.args) > 1:
            copies.setdefault(call.args[0], {})[call.args[1]] = None
    return copies


def _readers(graph: VulkanGraph) -> dict[int, dict[str, None]]:
    """`operator role` of each argument, by value index."""
    readers: dict[int, dict[str, None]] = {}
    for call in graph.chain:
        if call.name == PREPACK:
            continue
        for position, index in _arguments(call, graph):
            known = readers.setdefault(index, {})
            if len(known) < _MOST_READERS:
                known[f"{short_name(call.name)} {record_of(call.name).argument(position)}"] = None
    return readers


def _arguments(call: OperatorCall, graph: VulkanGraph) -> Iterator[tuple[int, int]]:
    """(position, value index) of each argument, members of lists included."""
    for position, index in enumerate(call.args):
        value = graph.values[index]
        if isinstance(value, ValueList):
            yield from ((position, member) for member in value.ids)
        else:
            yield position, index
