"""The shader that each lookup of a file dispatches, and the shaders that a file carries."""

from collections.abc import Iterator, Mapping

from vkfuse.lint.operands import operands_of
from vkfuse.measure.shaders import stored_shaders
from vkfuse.measure.tables import constant_name
from vkfuse.pte.delegates import VulkanDelegate, vulkan_delegates
from vkfuse.pte.model import PteFile
from vkfuse.pte.vulkan import VkTensor, vulkan_graphs
from vkfuse.report.model import EmbeddedShader, LookupRow
from vkfuse.runtime.operators.lookup import FUSED, dispatches
from vkfuse.runtime.versions import lines_with


def lookups_of(pte: PteFile, names: Mapping[str, str]) -> tuple[LookupRow, ...]:
    """Return a row for each fused lookup, in the order of the file; `names` of tables by their keys' first digits."""
    return tuple(row for delegate in vulkan_delegates(pte).values() for row in _lookups(delegate, names))


def _lookups(delegate: VulkanDelegate, names: Mapping[str, str]) -> Iterator[LookupRow]:
    graph, where = delegate.graph, delegate.place
    for call in graph.chain:
        weight = graph.values[call.args[0]] if call.name == FUSED and call.args else None
        if isinstance(weight, VkTensor) and weight.constant:
            shaders = dispatches(operands_of(delegate, call), lines_with(FUSED))
            shown = constant_name(graph, weight, where)
            name = names.get(shown, shown)
            yield LookupRow(table=name, method=where.method, where=where, shaders=shaders)


def embedded_shaders(pte: PteFile) -> tuple[EmbeddedShader, ...]:
    """Return the shaders that delegates carry, one row for equal ones."""
    found: dict[tuple[str, str, int], EmbeddedShader] = {}
    for place, graph in vulkan_graphs(pte).items():
        for stored in stored_shaders(graph):
            name, sha256, size = key = (stored.name, stored.sha256, stored.constant.length)
            where = (*found[key].where, place) if key in found else (place,)
            found[key] = EmbeddedShader(
                name=name, sha256=sha256, bytes=size, where=tuple(dict.fromkeys(where))
            )
    return tuple(found.values())
