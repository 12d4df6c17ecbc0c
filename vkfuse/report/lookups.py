"""The shader that each lookup of a file dispatches, and the shaders that a file carries."""

from collections.abc import Iterator

from vkfuse.lint.operands import operands_of
from vkfuse.measure.shaders import stored_shaders
from vkfuse.measure.tables import constant_name
from vkfuse.pte.model import PteFile
from vkfuse.pte.sites import Site, site_of
from vkfuse.pte.vulkan import VkTensor, vulkan_graphs
from vkfuse.report.model import EmbeddedShader, LookupRow
from vkfuse.runtime.operators.lookup import FUSED, dispatches
from vkfuse.runtime.versions import lines_with


def lookups_of(pte: PteFile) -> tuple[LookupRow, ...]:
    """Return a row for each fused lookup, in the order of the file."""
    return tuple(
        row
        for method in pte.methods
        for index, delegate in enumerate(method.delegates)
        if (graph := vulkan_graphs(pte).get((method.name, index))) is not None
        for row in _lookups(site_of(delegate, graph, f"{method.name}/{index}"), method.name)
    )


def _lookups(site: Site, method: str) -> Iterator[LookupRow]:
    """Yield the lookups of one delegate."""
    for call in site.graph.chain:
        weight = site.graph.values[call.args[0]] if call.name == FUSED and call.args else None
        if isinstance(weight, VkTensor) and weight.constant:
            shaders = dispatches(operands_of(site, call), lines_with(FUSED))
            name = constant_name(site.graph, weight, site.where)
            yield LookupRow(table=name, method=method, where=site.where, shaders=shaders)


def embedded_shaders(pte: PteFile) -> tuple[EmbeddedShader, ...]:
    """Return the shaders that delegates carry, one row for equal ones."""
    places: dict[tuple[str, str, int], dict[str, None]] = {}
    for (method, index), graph in vulkan_graphs(pte).items():
        for stored in stored_shaders(graph):
            key = (stored.name, stored.sha256, stored.constant.length)
            places.setdefault(key, {})[f"{method}/{index}"] = None
    return tuple(
        EmbeddedShader(name=name, sha256=sha256, bytes=size, where=tuple(where))
        for (name, sha256, size), where in places.items()
    )
