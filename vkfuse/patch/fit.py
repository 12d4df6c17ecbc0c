"""Whether the call that reads a table can become a fused lookup as it stands in the file."""

from itertools import count

from vkfuse.measure.tables import FloatMatmul, TableRead
from vkfuse.patch.lookups import FLOATS
from vkfuse.patch.matmuls import matmul_misfit
from vkfuse.patch.methods import MethodEdit
from vkfuse.pte.enums import ShapeDynamism, VkDataType, VkStorageType
from vkfuse.pte.model import PteFile, Tensor, Value
from vkfuse.pte.vulkan import VkTensor, VkValue, vulkan_graphs
from vkfuse.runtime.codes import Code
from vkfuse.tables.decisions import Refusal
from vkfuse.tables.q4 import Q4Pack

_MOST_DIMENSIONS = 4  # of rows: EmbeddingQ4gsw.cpp hands sizes over as an ivec4


def misfit(file: PteFile, read: TableRead | FloatMatmul, pack: Q4Pack) -> Refusal | None:
    """Return why a lookup or a product cannot read a pack, None where it can."""
    if isinstance(read, FloatMatmul):
        return _of_matmul(file, read, pack)
    if read.indices is None:
        return _odd("the lookup has too few arguments")
    if read.where.delegate is None:
        method = next(method for method in file.methods if method.name == read.where.method)
        return _on_cpu(method.values[read.indices], method.values[read.output], pack)
    graph = vulkan_graphs(file)[read.where.around]
    return _in_delegate(graph.values[read.indices], graph.values[read.output], pack)


def _of_matmul(file: PteFile, read: FloatMatmul, pack: Q4Pack) -> Refusal | None:
    graphs = vulkan_graphs(file)
    method = next(method for method in file.methods if method.name == read.where.method)
    dynamic = MethodEdit(method, graphs, count()).dynamic(read.where.delegate or 0)
    return matmul_misfit(graphs[read.where.around], read, pack, dynamic=dynamic)


def _on_cpu(indices: Value, out: Value, pack: Q4Pack) -> Refusal | None:
    if not isinstance(indices, Tensor) or not isinstance(out, Tensor):
        return _odd("indices or rows are no tensor")
    if ShapeDynamism.DYNAMIC_UNBOUND in {indices.dynamism, out.dynamism}:
        return Refusal(
            code="no-bound", detail="the sizes have no upper bound", hint="export with bounds for each size"
        )
    for tensor in (indices, out):
        if tensor.dim_order != tuple(sorted(tensor.dim_order)):
            return _odd("indices or rows are in another order of dimensions")
    if out.scalar_type not in FLOATS:
        return _type(out.scalar_type.label)
    return _shape(indices.sizes, out.sizes, pack)


def _in_delegate(indices: VkValue, out: VkValue, pack: Q4Pack) -> Refusal | None:
    if not isinstance(indices, VkTensor) or not isinstance(out, VkTensor):
        return _odd("indices or rows are no tensor")
    if out.dtype not in FLOATS.values() or indices.dtype is not VkDataType.INT32:
        return _type(f"{out.dtype.label} by {indices.dtype.label} indices")
    if {indices.storage, out.storage} - {VkStorageType.BUFFER, VkStorageType.TEXTURE_3D}:
        return _odd("indices or rows are neither in a buffer nor in a 3-D texture")
    return _shape(indices.dims, out.dims, pack)


def _shape(indices: tuple[int, ...], out: tuple[int, ...], pack: Q4Pack) -> Refusal | None:
    if out != (*indices, pack.columns):
        return _odd(f"rows {list(out)} of indices {list(indices)}")
    if not indices or 0 in indices:
        return Refusal(code="no-indices", detail=f"indices {list(indices)}")
    if len(out) > _MOST_DIMENSIONS:
        return Refusal(code=Code.MORE_THAN_4_DIMS, detail=f"rows {list(out)}")
    return None


def _type(label: str) -> Refusal:
    return Refusal(
        code="activation-dtype",
        detail=f"rows are {label}, which the fused lookup does not write",
        hint="export in float32 or float16",
    )


def _odd(detail: str) -> Refusal:
    return Refusal(code="call-not-understood", detail=detail)
