"""The shaders of a delegate's lookups, handed to ExecuTorch's serializer with the graph."""

from collections.abc import Iterator
from typing import Any

from executorch.backends.vulkan.serialization import vulkan_graph_schema as schema
from executorch.backends.vulkan.serialization import vulkan_graph_serialize as serializer

from vkfuse.glsl.manifest import shipped_spirv
from vkfuse.glsl.variants import Variant, variant_named
from vkfuse.pte.enums import VkDataType, VkStorageType
from vkfuse.runtime.operands import Operands, Tensor
from vkfuse.runtime.operators.lookup import FUSED, dispatches


def serialize_shaders(graph: Any, _shaders: list[str], raw_bytes: bytearray) -> bytes:
    """Append the lookups' SPIR-V to the blob's bytes, each aligned as constants are, and refer to it in `VkGraph.shaders`.

    In place of ExecuTorch's function of this signature, which has no custom shaders yet.
    """
    for variant in dict.fromkeys(_variants(graph)):
        spirv = shipped_spirv(variant)
        graph.shaders.append(schema.VkBytes(offset=len(raw_bytes), length=len(spirv)))
        raw_bytes += spirv + bytes(serializer.padding_required(len(spirv)))
    return b""


def _variants(graph: Any) -> Iterator[Variant]:
    """What the lookups of a graph may dispatch."""
    for call in graph.chain:
        if call.name == FUSED:
            for dispatch in dispatches(_operands(graph, call), ()):
                yield variant_named(dispatch.name)


def _operands(graph: Any, call: Any) -> Operands:
    """The operands of a lookup that is not written yet."""
    weight, scales, _, _, linear, out = (graph.values[at].value for at in call.args)
    values = {"weight": _tensor(weight), "scales": _tensor(scales), "is_linear_weight": linear.bool_val}
    return Operands(operator=FUSED, values=values, output=_tensor(out))


def _tensor(tensor: Any) -> Tensor:
    return Tensor(
        dims=tuple(tensor.dims),
        dtype=VkDataType(tensor.datatype),
        storages=frozenset({VkStorageType(tensor.storage_type)}),
    )
