"""Whether the call that reads a table can read it otherwise, as the call stands in the file."""

from collections.abc import Iterable
from dataclasses import replace
from itertools import count

import numpy as np

from vkfuse.measure.tables import FloatMatmul, TableRead
from vkfuse.patch.edit import Pack
from vkfuse.patch.lookups import FLOATS, LookedUp
from vkfuse.patch.matmuls import matmul_misfit
from vkfuse.patch.methods import MethodEdit
from vkfuse.pte.enums import ScalarType, ShapeDynamism, VkDataType, VkStorageType
from vkfuse.pte.model import DelegateCall, Method, PteFile, Tensor, Value
from vkfuse.pte.vulkan import VkTensor, VkValue, VulkanGraph, vulkan_graphs
from vkfuse.runtime.codes import Code
from vkfuse.tables.decisions import Refusal
from vkfuse.tables.grid import Grid
from vkfuse.tables.planes import NibbleRows
from vkfuse.tables.q4 import Q4Pack
from vkfuse.tables.q8 import Q8Pack

_MOST_DIMENSIONS = 4  # of rows: EmbeddingQ4gsw.cpp hands sizes over as an ivec4


def misfit(file: PteFile, read: TableRead | FloatMatmul, pack: Pack) -> Refusal | None:
    """Return why a lookup or a product cannot read a pack, None where it can. TypeError for a pack of the other's."""
    method = next(method for method in file.methods if method.name == read.where.method)
    match read, pack:
        case FloatMatmul(), Q4Pack() | Q8Pack():
            return _of_matmul(file, method, read, pack)
        case TableRead(indices=None), _:
            return _odd("the lookup has too few arguments")
        case TableRead(indices=int(indices)), Grid() | Q4Pack() | NibbleRows():
            return _of_lookup(file, method, read, indices, pack)
    raise TypeError(f"{read.where} reads no {type(pack).__name__}")


def _of_matmul(file: PteFile, method: Method, read: FloatMatmul, pack: Q4Pack | Q8Pack) -> Refusal | None:
    graphs = vulkan_graphs(file)
    dynamic = MethodEdit(method, graphs, count()).dynamic(read.where.delegate or 0)
    return matmul_misfit(graphs[read.where.around], read, pack, dynamic=dynamic)


def _of_lookup(
    file: PteFile, method: Method, read: TableRead, indices: int, pack: LookedUp | Grid
) -> Refusal | None:
    if read.where.delegate is None:
        ids, out = method.values[indices], method.values[read.output]
        return _gathered(ids, out, pack) if isinstance(pack, Grid) else _fused_on_cpu(ids, out, pack)
    graph = vulkan_graphs(file)[read.where.around]
    if not isinstance(pack, Grid):
        return _in_delegate(graph.values[indices], graph.values[read.output], pack)
    return _in_front(graph, indices, read.output, pack) or _crossing(method, graph, read, indices, pack)


def _fused_on_cpu(indices: Value, out: Value, pack: LookedUp) -> Refusal | None:
    if not isinstance(indices, Tensor) or not isinstance(out, Tensor):
        return _no_tensors()
    refused = _unbound((indices, out))
    if refused is None and out.scalar_type not in FLOATS:
        return _type(out.scalar_type.label)
    refused = refused or _shape(indices.sizes, out.sizes, pack)
    return refused or _factors(out.sizes, FLOATS.get(out.scalar_type), pack)


def _factors(out: tuple[int, ...], dtype: VkDataType | None, pack: LookedUp) -> Refusal | None:
    """Why scales of a matmul cannot be gathered for rows of these sizes, each as a row of its own."""
    if not isinstance(pack, NibbleRows):
        return None
    if dtype is not VkDataType.FLOAT32 or pack.factors.dtype != np.float32:
        return replace(_type("not float32"), beside=True)
    if len(out) >= _MOST_DIMENSIONS:
        return Refusal(code=Code.MORE_THAN_4_DIMS, detail=f"a scale for each of {list(out)}", beside=True)
    return None


def _gathered(indices: Value, out: Value, table: Grid) -> Refusal | None:
    """Why rows of the CPU cannot be made of bytes."""
    if not isinstance(indices, Tensor) or not isinstance(out, Tensor):
        return _no_tensors()
    if table.zero_points is not None and table.dtype is ScalarType.BFLOAT16:
        return _type("bfloat16, which integers less zero points are not")
    if out.scalar_type is not table.dtype:
        return _type(out.scalar_type.label)
    if out.allocation is None:
        return _odd("the caller says where the rows are")
    return _unbound((indices, out)) or _rows(indices.sizes, out.sizes, table.values.shape[1])


def _in_front(graph: VulkanGraph, indices: int, out: int, table: Grid) -> Refusal | None:
    """Why a lookup of a delegate cannot be done in front of it."""
    ids, rows = graph.values[indices], graph.values[out]
    if not isinstance(ids, VkTensor) or not isinstance(rows, VkTensor):
        return _no_tensors()
    if indices not in graph.input_ids or graph.output_ids.count(out) > 1:
        return Refusal(code="lookup-inside-delegate", detail="the delegate computes the indices")
    if rows.dtype is not FLOATS.get(table.dtype):
        return _type(rows.dtype.label)
    return _rows(ids.dims, rows.dims, table.values.shape[1])


def _crossing(
    method: Method, graph: VulkanGraph, read: TableRead, indices: int, table: Grid
) -> Refusal | None:
    """Why what a delegate is called with does not allow it."""
    sides = (*graph.input_ids, *graph.output_ids)
    for entry in method.instructions:
        if isinstance(entry, DelegateCall) and entry.delegate_index == read.where.delegate:
            given = dict(zip(sides, (method.values[arg] for arg in entry.args), strict=False))
            ids, rows = given[indices], given.get(read.output)
            if not isinstance(ids, Tensor):
                return _no_tensors()
            refused = _unbound((ids,)) if rows is None else _gathered(ids, rows, table)
            if refused is not None:
                return refused
    return None


def _unbound(tensors: Iterable[Tensor]) -> Refusal | None:
    for tensor in tensors:
        if tensor.dynamism is ShapeDynamism.DYNAMIC_UNBOUND:
            return Refusal(
                code="no-bound",
                detail="the sizes have no upper bound",
                hint="export with bounds for each size",
            )
        if tensor.dim_order != tuple(sorted(tensor.dim_order)):
            return _odd("indices or rows are in another order of dimensions")
    return None


def _in_delegate(indices: VkValue, out: VkValue, pack: LookedUp) -> Refusal | None:
    if not isinstance(indices, VkTensor) or not isinstance(out, VkTensor):
        return _no_tensors()
    if out.dtype not in FLOATS.values() or indices.dtype is not VkDataType.INT32:
        return _type(f"{out.dtype.label} by {indices.dtype.label} indices")
    if {indices.storage, out.storage} - {VkStorageType.BUFFER, VkStorageType.TEXTURE_3D}:
        return _odd("indices or rows are neither in a buffer nor in a 3-D texture")
    refused = _shape(indices.dims, out.dims, pack)
    return refused or _factors(out.dims, out.dtype, pack)


def _shape(indices: tuple[int, ...], out: tuple[int, ...], pack: LookedUp) -> Refusal | None:
    if not indices or 0 in indices:
        return Refusal(code="no-indices", detail=f"indices {list(indices)}")
    if len(out) > _MOST_DIMENSIONS:
        return Refusal(code=Code.MORE_THAN_4_DIMS, detail=f"rows {list(out)}")
    return _rows(indices, out, pack.columns)


def _rows(indices: tuple[int, ...], out: tuple[int, ...], columns: int) -> Refusal | None:
    if out != (*indices, columns):
        return _odd(f"rows {list(out)} of indices {list(indices)}")
    return None


def _type(label: str) -> Refusal:
    return Refusal(
        code="activation-dtype",
        detail=f"rows are {label}, which the lookup does not write",
        hint="export in float32 or float16",
    )


def _no_tensors() -> Refusal:
    return _odd("indices or rows are no tensor")


def _odd(detail: str) -> Refusal:
    return Refusal(code="call-not-understood", detail=detail)
