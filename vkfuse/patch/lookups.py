"""Calls of the fused lookup in a Vulkan graph, in place of rows that came from a float table.

Indices of one row are read from a texture; of more, and where columns were padded or the reader's layout is another,
lookup and indices are in buffers, which the shader reads whole, and the rows are copied to where they are read. No size is
computed: every operator follows the sizes of its input.
Source: EmbeddingQ4gsw.cpp and Clone.cpp of backends/vulkan in ExecuTorch 1.5.
"""

from collections.abc import Iterator
from math import prod
from typing import Final

from vkfuse.patch.graphs import WIDTH, GraphEdit
from vkfuse.pte.enums import ScalarType, VkDataType, VkMemoryLayout, VkStorageType
from vkfuse.pte.values import Bool, Int
from vkfuse.pte.vulkan import OperatorCall, VkTensor
from vkfuse.runtime.operators.lookup import FUSED
from vkfuse.runtime.operators.moves import COPY, SLICE
from vkfuse.tables.q4 import Q4Pack

FLOATS: Final = {ScalarType.FLOAT: VkDataType.FLOAT32, ScalarType.HALF: VkDataType.FLOAT16}
BUFFER: Final = VkStorageType.BUFFER
TEXTURE: Final = VkStorageType.TEXTURE_3D


def input_indices(edit: GraphEdit, dims: tuple[int, ...], out: VkTensor, pack: Q4Pack) -> int:
    """Add the indices of a lookup as a tensor that the border fills, stored as the lookup will read them."""
    return edit.value(
        VkTensor(
            dtype=VkDataType.INT32,
            dims=dims,
            storage=TEXTURE if _direct(dims, out, pack) else BUFFER,
            layout=WIDTH,
            staging_dtype=VkDataType.INT32,
        )
    )


def lookup_calls(edit: GraphEdit, pack: Q4Pack, indices: int, out: int) -> Iterator[OperatorCall]:
    """Yield the calls that look `indices` up and write the rows to the tensor `out` of the graph."""
    ids, target = edit.tensor_at(indices), edit.tensor_at(out)
    if ids.storage is TEXTURE and ids.layout in _WIDE and _direct(ids.dims, target, pack):
        yield _fused(edit, pack, indices, out)
        return
    if ids.storage is not BUFFER or ids.layout not in _WIDE:
        copied = edit.tensor(ids, storage=BUFFER, layout=WIDTH)
        yield cloned(edit, indices, copied)
        indices = copied
    steps = [pack.padded_columns, *([pack.columns] if pack.padded_columns != pack.columns else [])]
    made = [
        edit.tensor(target, dims=(*target.dims[:-1], columns), storage=BUFFER, layout=WIDTH)
        for columns in steps
    ]
    if target.storage is BUFFER and target.layout in _WIDE:
        made[-1] = out
    yield _fused(edit, pack, indices, made[0])
    if len(made) > 1:
        yield _sliced(edit, made[0], pack.columns, made[1])
    if made[-1] != out:
        yield cloned(edit, made[-1], out)


_WIDE: Final = {WIDTH, VkMemoryLayout.DEFAULT_LAYOUT}


def _direct(indices: tuple[int, ...], out: VkTensor, pack: Q4Pack) -> bool:
    """Whether a lookup in textures is right: one row of indices, whole rows of texels along the columns."""
    return (
        prod(indices[:-1]) == 1
        and out.storage is TEXTURE
        and out.layout in _WIDE
        and pack.columns == pack.padded_columns
    )


def _fused(edit: GraphEdit, pack: Q4Pack, indices: int, out: int) -> OperatorCall:
    weight, scales = edit.constant(pack.packed), edit.constant(pack.scales)
    group, linear = edit.value(Int(pack.group_size)), edit.value(Bool(pack.is_linear_weight))
    return edit.call(FUSED, weight, scales, group, indices, linear, out)


def _sliced(edit: GraphEdit, rows: int, columns: int, out: int) -> OperatorCall:
    last = len(edit.tensor_at(rows).dims) - 1
    numbers = (edit.value(Int(number)) for number in (last, 0, columns, 1))
    return edit.call(SLICE, rows, *numbers, out)


def cloned(edit: GraphEdit, source: int, out: int) -> OperatorCall:
    """Copy a tensor to another, stored or packed otherwise (Clone.cpp)."""
    return edit.call(COPY, source, edit.value(None), out)


def lookup_graph(pack: Q4Pack, indices: tuple[int, ...], dtype: VkDataType) -> GraphEdit:
    """Return a graph that looks indices of these greatest sizes up and hands the rows out."""
    edit = GraphEdit()
    storage = TEXTURE if prod(indices[:-1]) == 1 and pack.columns == pack.padded_columns else BUFFER
    dims = (*indices, pack.columns)
    tensor = VkTensor(dtype=dtype, dims=dims, storage=storage, layout=WIDTH, staging_dtype=dtype)
    ids, rows = input_indices(edit, indices, tensor, pack), edit.value(tensor)
    edit.inputs, edit.outputs = [ids], [rows]
    edit.in_front(lookup_calls(edit, pack, ids, rows))
    return edit
