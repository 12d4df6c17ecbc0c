"""Tables that a shader reads wrong: of groups that it cannot read, or looked up by indices that it reads in part."""

from collections.abc import Sequence
from typing import Final

from vkfuse.measure.stored import stored_tables, values_of
from vkfuse.measure.tables import TableRead
from vkfuse.patch.faulty import Fault, Faulty, mends
from vkfuse.patch.fit import misfit
from vkfuse.patch.lookups import lookup_calls
from vkfuse.pte.enums import ScalarType
from vkfuse.pte.values import Bool, Int
from vkfuse.pte.vulkan import OperatorCall, VkTensor
from vkfuse.runtime.codes import Code
from vkfuse.runtime.operators import linear
from vkfuse.runtime.operators.lookup import FUSED, PLAIN
from vkfuse.tables.q4 import Q4Pack

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
