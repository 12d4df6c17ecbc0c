"""Matmuls on batches or packings which the runtime gets wrong or refuses: inputs are viewed as rows, or copied."""

from collections.abc import Sequence
from typing import Final

from vkfuse.patch.faulty import Fault, Faulty, mends
from vkfuse.patch.flat import as_rows, quantized_as_rows
from vkfuse.patch.lookups import cloned
from vkfuse.pte.enums import VkStorageType
from vkfuse.pte.vulkan import OperatorCall, VkTensor
from vkfuse.runtime.codes import Code
from vkfuse.runtime.operators import record_of
from vkfuse.runtime.operators.linear import BYTES_BY_CHANNEL, FUSED, FUSED_BYTES
from vkfuse.runtime.operators.matmul import FLOAT_WEIGHTS
from vkfuse.runtime.spelling import BY_WIDTH, WIDTH

_MULTIPLIED: Final = frozenset({*FLOAT_WEIGHTS, FUSED, FUSED_BYTES})  # measured so
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
    if fault.call.name != BYTES_BY_CHANNEL:
        return ()
    *operands, out = fault.call.args
    return (faulty.edit.call(FUSED_BYTES, *operands, faulty.edit.value(None), out),)


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
