"""Calls of the fused lookup in a Vulkan graph, in place of rows that came from a float table.

Indices of one row are read from a texture; of more, and where columns were padded or the reader's layout is another,
lookup and indices are in buffers, which the shader reads whole, and the rows are copied to where they are read. Scales of a
matmul, [groups, rows], are gathered by places that integers of buffers count exactly, and multiplied. No size is computed:
every operator follows the sizes of its input.
Source: EmbeddingQ4gsw.cpp, Embedding.cpp, BinaryOp.cpp and Clone.cpp of backends/vulkan in ExecuTorch 1.5.
"""

from collections.abc import Iterator
from math import prod
from typing import Final

import numpy as np

from vkfuse.patch.graphs import GraphEdit
from vkfuse.pte.enums import ScalarType, VkDataType, VkStorageType
from vkfuse.pte.values import Bool, Int
from vkfuse.pte.vulkan import OperatorCall, VkTensor
from vkfuse.runtime.operators.lookup import FUSED, PLAIN
from vkfuse.runtime.operators.moves import COPY, SELECT, SLICE, UNSQUEEZE
from vkfuse.runtime.spelling import BY_WIDTH, WIDTH
from vkfuse.tables.planes import NibbleRows
from vkfuse.tables.q4 import Q4Pack

LookedUp = Q4Pack | NibbleRows

FLOATS: Final = {ScalarType.FLOAT: VkDataType.FLOAT32, ScalarType.HALF: VkDataType.FLOAT16}
BUFFER: Final = VkStorageType.BUFFER
TEXTURE: Final = VkStorageType.TEXTURE_3D


def input_indices(edit: GraphEdit, dims: tuple[int, ...], out: VkTensor, pack: LookedUp) -> int:
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


def lookup_calls(edit: GraphEdit, pack: LookedUp, indices: int, out: int) -> Iterator[OperatorCall]:
    """Yield the calls that look `indices` up and write the rows to the tensor `out` of the graph."""
    ids, target = edit.tensor_at(indices), edit.tensor_at(out)
    textured = ids.storage is TEXTURE and ids.layout in BY_WIDTH and _direct(ids.dims, target, pack)
    if isinstance(pack, Q4Pack) and textured:
        yield _fused(edit, pack, indices, out)
        return
    if ids.storage is not BUFFER or ids.layout not in BY_WIDTH:
        copied = edit.tensor(ids, storage=BUFFER, layout=WIDTH)
        yield cloned(edit, indices, copied)
        indices = copied
    direct = target.storage is BUFFER and target.layout in BY_WIDTH
    rows = out if direct else edit.tensor(target, storage=BUFFER, layout=WIDTH)
    if isinstance(pack, Q4Pack):
        yield from _by_scales(edit, pack, indices, rows)
    else:
        yield from _by_factors(edit, pack, indices, rows)
    if not direct:
        yield cloned(edit, rows, out)


def _by_scales(edit: GraphEdit, pack: Q4Pack, indices: int, out: int) -> Iterator[OperatorCall]:
    """Look up in buffers, and take columns of padding off."""
    target = edit.tensor_at(out)
    if pack.padded_columns == pack.columns:
        yield _fused(edit, pack, indices, out)
        return
    rows = edit.tensor(target, dims=(*target.dims[:-1], pack.padded_columns))
    yield _fused(edit, pack, indices, rows)
    yield _sliced(edit, rows, pack.columns, out)


def _by_factors(edit: GraphEdit, rows: NibbleRows, indices: int, out: int) -> Iterator[OperatorCall]:
    """Look integers up in buffers, gather the scale of each, and multiply by them: no sizes are told, so any may change."""
    ids, target = edit.tensor_at(indices), edit.tensor_at(out)
    rank = len(ids.dims)
    column, places = edit.tensor(ids, dims=(*ids.dims, 1)), edit.tensor(ids, dims=target.dims)
    integers, scales = edit.tensor(target), edit.tensor(target)
    gathered = edit.tensor(target, dims=(*target.dims, 1))
    yield _fused(edit, rows.pack, indices, integers)
    yield edit.call(UNSQUEEZE, indices, edit.value(Int(rank)), column)
    each, groups = rows.scales.shape
    starts = np.arange(groups, dtype=np.int32).repeat(rows.group_size) * np.int32(each)
    yield edit.call(_ADD, column, edit.constant(starts), edit.value(Int(1)), places)
    no = edit.value(Bool(False))
    yield edit.call(PLAIN, edit.constant(rows.factors), places, edit.value(Int(-1)), no, no, gathered)
    yield edit.call(SELECT, gathered, edit.value(Int(rank + 1)), edit.value(Int(0)), scales)
    yield edit.call(_MULTIPLY, integers, scales, out)


_ADD: Final = "aten.add.Tensor"
_MULTIPLY: Final = "aten.mul.Tensor"


def _direct(indices: tuple[int, ...], out: VkTensor, pack: LookedUp) -> bool:
    """Whether a lookup in textures is right: one row of indices, whole rows of texels along the columns."""
    return out.storage is TEXTURE and out.layout in BY_WIDTH and _in_texels(indices, pack)


def _in_texels(indices: tuple[int, ...], pack: LookedUp) -> bool:
    return isinstance(pack, Q4Pack) and prod(indices[:-1]) == 1 and pack.columns == pack.padded_columns


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


def lookup_graph(pack: LookedUp, indices: tuple[int, ...], dtype: VkDataType) -> GraphEdit:
    """Return a graph that looks indices of these greatest sizes up and hands the rows out."""
    edit = GraphEdit()
    storage = TEXTURE if _in_texels(indices, pack) else BUFFER
    dims = (*indices, pack.columns)
    tensor = VkTensor(dtype=dtype, dims=dims, storage=storage, layout=WIDTH, staging_dtype=dtype)
    ids, rows = input_indices(edit, indices, tensor, pack), edit.value(tensor)
    edit.inputs, edit.outputs = [ids], [rows]
    edit.in_front(lookup_calls(edit, pack, ids, rows))
    return edit
