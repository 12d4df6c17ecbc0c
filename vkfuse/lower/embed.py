"""The shaders of a delegate's lookups, handed to ExecuTorch's serializer with the graph."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from executorch.backends.vulkan.serialization import vulkan_graph_schema as schema
from executorch.backends.vulkan.serialization import vulkan_graph_serialize as serializer

from vkfuse.glsl.manifest import shipped_spirv
from vkfuse.glsl.sites import OPERATOR, dispatches
from vkfuse.glsl.variants import DType, Storage, Variant, variant_named


@contextmanager
def shaders_embedded(*, wanted: bool) -> Iterator[None]:
    """Let ExecuTorch's serializer, which has no custom shaders yet, store those of the lookups in `VkGraph.shaders`."""
    upstream = serializer.serialize_custom_shaders
    try:
        if wanted:
            serializer.serialize_custom_shaders = _serialize
        yield
    finally:
        serializer.serialize_custom_shaders = upstream


def _serialize(graph: Any, _shaders: list[str], raw_bytes: bytearray) -> bytes:
    """Append the SPIR-V to the blob's bytes, each aligned as constants are, and refer to it in the graph."""
    for variant in dict.fromkeys(_variants(graph)):
        spirv = shipped_spirv(variant)
        graph.shaders.append(schema.VkBytes(offset=len(raw_bytes), length=len(spirv)))
        raw_bytes += spirv + bytes(serializer.padding_required(len(spirv)))
    return b""


def _variants(graph: Any) -> Iterator[Variant]:
    """What the lookups of a graph may dispatch."""
    for call in graph.chain:
        if call.name != OPERATOR:
            continue
        weight, scales, _, _, linear, out = (graph.values[at].value for at in call.args)
        buffer = out.storage_type is schema.VkStorageType.BUFFER
        for dispatch in dispatches(
            vocab=weight.dims[0],
            embed_dim=weight.dims[1] * 2,
            scales=_dtype(scales),
            dtype=_dtype(out),
            storage=Storage.BUFFER if buffer else Storage.TEXTURE3D,
            is_linear_weight=linear.bool_val,
        ):
            yield variant_named(dispatch.name)


def _dtype(tensor: Any) -> DType:
    return DType.HALF if tensor.datatype is schema.VkDataType.FLOAT16 else DType.FLOAT
