"""The shader that each lookup of a file dispatches, and the shaders that a file carries."""

from collections.abc import Iterator
from typing import Final

from vkfuse.glsl.sites import OPERATOR, Dispatch, dispatches
from vkfuse.glsl.variants import DType, Storage
from vkfuse.pte.calls import Call, Site, site_of
from vkfuse.pte.enums import VkDataType, VkStorageType
from vkfuse.pte.model import PteFile
from vkfuse.pte.shaders import stored_shaders
from vkfuse.pte.tables import constant_name
from vkfuse.pte.vulkan import Graphs
from vkfuse.report.model import EmbeddedShader, LookupRow

_DTYPES: Final = {VkDataType.FLOAT16: DType.HALF, VkDataType.FLOAT32: DType.FLOAT}
_STORAGES: Final = {VkStorageType.BUFFER: Storage.BUFFER, VkStorageType.TEXTURE_3D: Storage.TEXTURE3D}


def lookups_of(pte: PteFile, graphs: Graphs) -> tuple[LookupRow, ...]:
    """Return a row for each fused lookup, in the order of the file."""
    return tuple(
        row
        for method in pte.methods
        for index, delegate in enumerate(method.delegates)
        if (graph := graphs.get((method.name, index))) is not None
        for row in _lookups(site_of(delegate, graph, f"{method.name}/{index}"), method.name)
    )


def _lookups(site: Site, method: str) -> Iterator[LookupRow]:
    """Yield the lookups of one delegate."""
    for operator in site.graph.chain:
        call = Call(site, operator)
        weight = call.tensor(0)
        if call.name == OPERATOR and weight is not None and weight.constant:
            name = constant_name(site.graph, weight, site.where)
            yield LookupRow(table=name, method=method, where=site.where, shaders=_shaders(call))


def _shaders(call: Call) -> tuple[Dispatch, ...]:
    """Return what the runtime may dispatch, nothing for types and storages that it has no shader for."""
    weight, scales, out = call.tensor(0), call.tensor(1), call.tensor(-1)
    if weight is None or scales is None or out is None or len(weight.dims) != 2:
        return ()
    dtype, storage = _DTYPES.get(out.dtype), _STORAGES.get(call.site.storage(out))
    if dtype is None or storage is None or scales.dtype not in _DTYPES:
        return ()
    return dispatches(
        vocab=weight.dims[0],
        embed_dim=weight.dims[1] * 2,
        scales=_DTYPES[scales.dtype],
        dtype=dtype,
        storage=storage,
        is_linear_weight=call.flag(4) is not False,
    )


def embedded_shaders(graphs: Graphs) -> tuple[EmbeddedShader, ...]:
    """Return the shaders that delegates carry, one row for equal ones."""
    places: dict[tuple[str, str, int], dict[str, None]] = {}
    for (method, index), graph in graphs.items():
        for stored in stored_shaders(graph):
            key = (stored.name, stored.sha256, stored.constant.length)
            places.setdefault(key, {})[f"{method}/{index}"] = None
    return tuple(
        EmbeddedShader(name=name, sha256=sha256, bytes=size, where=tuple(where))
        for (name, sha256, size), where in places.items()
    )
