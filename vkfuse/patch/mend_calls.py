"""Calls that the runtime gets wrong or refuses, and that others express.

Matmuls on batches or packings: inputs are viewed as rows, or copied. Operators and arguments that it lacks. Tables of
groups that a shader cannot read, or looked up by indices that it reads in part.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from vkfuse.measure.stored import stored_tables, values_of
from vkfuse.measure.tables import TableRead
from vkfuse.patch.faulty import Fault, Faulty, mends
from vkfuse.patch.fit import misfit
from vkfuse.patch.flat import as_rows, quantized_as_rows
from vkfuse.patch.lookups import cloned, lookup_calls
from vkfuse.pte.enums import ScalarType, VkDataType, VkStorageType
from vkfuse.pte.values import Bool, BoolList, DoubleList, Int
from vkfuse.pte.vulkan import IntList, OperatorCall, VkTensor
from vkfuse.runtime.codes import Code
from vkfuse.runtime.operators import linear, record_of
from vkfuse.runtime.operators.lookup import FUSED, PLAIN
from vkfuse.runtime.operators.matmul import FLOAT_WEIGHTS
from vkfuse.runtime.spelling import BY_WIDTH, FLOATS, WIDTH
from vkfuse.tables.q4 import Q4Pack

_MULTIPLIED: Final = frozenset({*FLOAT_WEIGHTS, linear.FUSED, linear.FUSED_BYTES})  # measured so
_MATRICES: Final = frozenset({"input", "mat1", "mat2"})


@mends(Code.PACKED_OTHERWISE, Code.PACKING_IGNORED, code="packed-by-width")
def pack_by_width(faulty: Faulty, fault: Fault) -> Sequence[OperatorCall]:
    """Multiply copies that are packed by width and stored as the product, and copy the product to where it belongs."""
    edit, call = faulty.edit, fault.call
    out, record = edit.at(call.args[-1]), record_of(call.name)
    if not isinstance(out, VkTensor) or call.name not in _MULTIPLIED:
        return []
    before, args = [], [*call.args]
    for at, index in enumerate(call.args[:-1]):
        value = edit.at(index)
        if not isinstance(value, VkTensor) or value.constant or record.argument(at) not in _MATRICES:
            continue
        if value.layout not in BY_WIDTH or _in_buffer(value) != _in_buffer(out):
            args[at] = edit.tensor(value, storage=out.storage, layout=WIDTH)
            before.append(cloned(edit, index, args[at]))
    if out.layout in BY_WIDTH:
        return [*before, edit.call(call.name, *args)]
    args[-1] = edit.tensor(out, layout=WIDTH)
    return [*before, edit.call(call.name, *args), cloned(edit, args[-1], call.args[-1])]


def _in_buffer(tensor: VkTensor) -> bool:
    return tensor.storage is VkStorageType.BUFFER


@mends(Code.ROWS_LEFT_OUT, Code.NO_SHADER, code="bytes-by-another-operator")
def multiply_by_bytes(faulty: Faulty, fault: Fault) -> Sequence[OperatorCall]:
    """The same product of the same bytes and scales, whose shader takes any number of rows, and half precision."""
    if fault.call.name != linear.BYTES_BY_CHANNEL:
        return ()
    *operands, out = fault.call.args
    return (faulty.edit.call(linear.FUSED_BYTES, *operands, faulty.edit.value(None), out),)


@mends(Code.LINEAR_INPUT_BATCHED, code="input-as-rows", detail="{name} on a batch")
def multiply_matrices(faulty: Faulty, fault: Fault) -> Sequence[OperatorCall]:
    """Multiply rows, and view the product as the batch that it was."""
    return as_rows(faulty.edit, faulty.graph, fault.call, dynamic=faulty.dynamic)


@mends(Code.QUANTIZED_INPUT_BATCHED, code="input-as-rows", detail="{name} on a batch")
def quantize_matrices(faulty: Faulty, fault: Fault) -> Sequence[OperatorCall]:
    """Choose the parameters of rows, and multiply these."""
    edits = quantized_as_rows(faulty.edit, faulty.graph, fault.position, dynamic=faulty.dynamic)
    for position, calls in edits.items():
        faulty.edit.instead(position, calls)
    return edits.get(fault.position, ())


_NOT: Final = "aten.logical_not.default"
_NOT_OF_BITS: Final = "aten.bitwise_not.default"
_NORM: Final = "aten.native_layer_norm.default"
_NORM_ARGUMENTS: Final = 6  # with the outputs
_POOL_ARGUMENTS: Final = 5
_LISTS: Final = (IntList, BoolList, DoubleList)  # the type of an empty list says nothing
_POOLS: Final = frozenset({"aten.avg_pool2d.default", "aten.max_pool2d.default"})


@mends(Code.NOT_REGISTERED, code="negation-of-bits")
def negate_bits(faulty: Faulty, fault: Fault) -> Sequence[OperatorCall]:
    """The negation of bits, which of a bool is that of its value (unary_op.yaml: ``1 - X``)."""
    source = faulty.graph.values[fault.call.args[0]]
    if fault.call.name != _NOT or not isinstance(source, VkTensor) or source.dtype is not VkDataType.BOOL:
        return ()
    return (replace(fault.call, name=_NOT_OF_BITS),)


@mends(Code.LAYER_NORM_WITHOUT_BIAS, code="layer-norm-completed")
def complete_layer_norms(faulty: Faulty, fault: Fault) -> Sequence[OperatorCall]:
    """A layer norm with a bias of zeros, as many as it has weights."""
    args = fault.call.args
    weight = (
        faulty.graph.values[args[2]] if fault.call.name == _NORM and len(args) == _NORM_ARGUMENTS else None
    )
    if not isinstance(weight, VkTensor) or weight.data is None or weight.dtype not in FLOATS:
        return ()
    zeros = faulty.edit.constant(np.zeros(weight.dims, weight.dtype.label))
    return (replace(fault.call, args=(*args[:3], zeros, *args[4:])),)


@mends(Code.DIMENSION_FROM_THE_END, code="dimension-from-the-front")
def count_from_the_front(faulty: Faulty, fault: Fault) -> Sequence[OperatorCall]:
    """A gather along the same dimension, counted from the first."""
    args, values = fault.call.args, faulty.graph.values
    source, dim = values[args[0]], values[args[1]]
    if not isinstance(source, VkTensor) or not isinstance(dim, Int):
        return ()
    front = faulty.edit.value(Int(dim.value + len(source.dims)))
    return (replace(fault.call, args=(args[0], front, *args[2:])),)


@mends(Code.POOL_ARGUMENTS, code="stride-given")
def give_strides(faulty: Faulty, fault: Fault) -> Sequence[OperatorCall]:
    """A pool whose stride is its window, which is what an empty one means."""
    args = fault.call.args
    if fault.call.name not in _POOLS or len(args) < _POOL_ARGUMENTS:
        return ()
    stride = faulty.graph.values[args[2]]
    empty = stride is None or (isinstance(stride, _LISTS) and not stride.items)
    return (replace(fault.call, args=(*args[:2], args[1], *args[3:])),) if empty else ()


_LINEAR: Final = "aten.linear.default"
_NO_PADDING: Final = -1


@mends(Code.GROUP_NOT_MULTIPLE_OF_4, code="table-folded", detail="{name} in groups of {read.group}")
def store_floats(faulty: Faulty, fault: Fault) -> Sequence[OperatorCall]:
    """Read a table of floats where groups are no multiple of the four columns for which a shader loads one scale."""
    read, edit, call = faulty.read(fault), faulty.edit, fault.call
    if read is None or call.name not in {FUSED, linear.FUSED}:
        return ()
    weight = _floats(faulty, fault, read)
    if weight is None:
        return ()
    if call.name == linear.FUSED:
        return (edit.call(_LINEAR, call.args[0], weight, call.args[4], call.args[-1]),)
    no = edit.value(Bool(value=False))
    return (edit.call(PLAIN, weight, call.args[3], edit.value(Int(_NO_PADDING)), no, no, call.args[-1]),)


def _floats(faulty: Faulty, fault: Fault, read: TableRead) -> int | None:
    """The table that a call reads as a constant of floats of the output's type."""
    out = faulty.graph.values[fault.call.args[-1]]
    tables = [*stored_tables([read])]
    if not tables or not isinstance(out, VkTensor):
        return None
    (table,) = tables
    columns = out.dims[-1] if read.reader.consumer == "gather" else table.columns
    return faulty.edit.constant(table.read(0, table.rows)[:, :columns])


@mends(
    *(Code.INDICES_MORE_THAN_ONE_ROW, Code.PACKED_OTHERWISE),
    code="indices-in-a-buffer",
    detail="{name} reads all indices, by rows",
)
def read_rows_in_buffers(faulty: Faulty, fault: Fault) -> Sequence[OperatorCall]:
    """Let the lookup read its indices from a buffer and write its rows to one, which the shader does whole."""
    read = faulty.read(fault)
    pack = None if read is None else _stored_pack(read)
    if read is None or pack is None or read.indices is None or misfit(faulty.file, read, pack):
        return ()
    return [*lookup_calls(faulty.edit, pack, read.indices, read.output)]


def _stored_pack(read: TableRead) -> Q4Pack | None:
    """The pack that a fused lookup reads, as it is in the file; None where it is not there or makes none."""
    weight = values_of(read.weight)
    scales = None if read.scales is None else values_of(read.scales)
    if weight is None or scales is None or not read.group or len(weight.shape) != 2:
        return None
    rows, width = weight.shape
    return Q4Pack(
        packed=weight.stored,
        scales=scales.stored,
        group_size=read.group,
        rows=rows,
        columns=width * 2,
        dtype=ScalarType.FLOAT,
        how=(),
        is_linear_weight=read.low_first is not False,
    )
