"""Tables whose groups no shader can read, as floats."""

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from vkfuse.measure.stored import stored_tables
from vkfuse.measure.tables import TableRead
from vkfuse.patch.faulty import Fault, Faulty, Mend
from vkfuse.patch.graphs import GraphEdit
from vkfuse.pte.values import Bool, Int
from vkfuse.pte.vulkan import OperatorCall, VkTensor
from vkfuse.runtime.codes import Code
from vkfuse.runtime.operators import linear
from vkfuse.runtime.operators.lookup import FUSED, PLAIN

_LINEAR: Final = "aten.linear.default"
_NO_PADDING: Final = -1


def store_floats(faulty: Faulty) -> Iterator[Mend]:
    """Read a table of floats where groups are no multiple of the four columns for which a shader loads one scale."""
    for fault in faulty.having(Code.GROUP_NOT_MULTIPLE_OF_4):
        read, made = faulty.reads.get(faulty.place.at(fault.position)), _FORMS.get(fault.call.name)
        weight = None if read is None else _floats(faulty, fault, read)
        if read is not None and made is not None and weight is not None:
            detail = f"{fault.call.name} in groups of {read.group}"
            yield faulty.mended(
                fault, [made(faulty.edit, fault.call, weight)], code="table-folded", detail=detail
            )


def _floats(faulty: Faulty, fault: Fault, read: TableRead) -> int | None:
    """The table that a call reads as a constant of floats of the output's type."""
    out = faulty.graph.values[fault.call.args[-1]]
    tables = [*stored_tables([read])]
    if not tables or not isinstance(out, VkTensor):
        return None
    (table,) = tables
    columns = out.dims[-1] if read.reader.consumer == "gather" else table.columns
    return faulty.edit.constant(table.read(0, table.rows)[:, :columns])


def _lookup(edit: GraphEdit, call: OperatorCall, weight: int) -> OperatorCall:
    no = edit.value(Bool(value=False))
    return edit.call(PLAIN, weight, call.args[3], edit.value(Int(_NO_PADDING)), no, no, call.args[-1])


def _linear(edit: GraphEdit, call: OperatorCall, weight: int) -> OperatorCall:
    return edit.call(_LINEAR, call.args[0], weight, call.args[4], call.args[-1])


_FORMS: Final[Mapping[str, Callable[[GraphEdit, OperatorCall, int], OperatorCall]]] = {
    FUSED: _lookup,
    linear.FUSED: _linear,
}
