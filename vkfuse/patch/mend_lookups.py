"""Fused lookups of which the runtime reads only the first row of indices, in a texture, or that are packed otherwise."""

from collections.abc import Iterator

from vkfuse.measure.stored import values_of
from vkfuse.measure.tables import TableRead
from vkfuse.patch.faulty import Faulty, Mend
from vkfuse.patch.fit import misfit
from vkfuse.patch.lookups import lookup_calls
from vkfuse.pte.enums import ScalarType
from vkfuse.runtime.codes import Code
from vkfuse.tables.q4 import Q4Pack


def read_rows_in_buffers(faulty: Faulty) -> Iterator[Mend]:
    """Let the lookup read its indices from a buffer and write its rows to one, which the shader does whole."""
    for fault in faulty.having(Code.INDICES_MORE_THAN_ONE_ROW, Code.PACKED_OTHERWISE):
        read = faulty.reads.get(faulty.place.at(fault.position))
        pack = None if read is None else stored_pack(read)
        if read is None or pack is None or read.indices is None or misfit(faulty.file, read, pack):
            continue
        calls = lookup_calls(faulty.edit, pack, read.indices, read.output)
        detail = f"{fault.call.name} reads all indices, by rows"
        yield faulty.mended(fault, calls, code="indices-in-a-buffer", detail=detail)


def stored_pack(read: TableRead) -> Q4Pack | None:
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
