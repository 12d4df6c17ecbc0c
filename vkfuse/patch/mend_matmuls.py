"""4-bit matmuls on batches, which the runtime gets wrong or refuses: their inputs are viewed as rows."""

from collections.abc import Iterator

from vkfuse.patch.faulty import Faulty, Mend
from vkfuse.patch.flat import as_rows, quantized_as_rows
from vkfuse.runtime.codes import Code


def multiply_matrices(faulty: Faulty) -> Iterator[Mend]:
    """Multiply rows, and view the product as the batch that it was."""
    for fault in faulty.having(Code.LINEAR_INPUT_BATCHED):
        calls = as_rows(faulty.edit, faulty.graph, fault.call, dynamic=faulty.dynamic)
        if calls:
            faulty.edit.instead(fault.position, calls)
            yield _mend(faulty, fault.position, fault.call.name)


def quantize_matrices(faulty: Faulty) -> Iterator[Mend]:
    """Choose the parameters of rows, and multiply these."""
    for fault in faulty.having(Code.QUANTIZED_INPUT_BATCHED):
        edits = quantized_as_rows(faulty.edit, faulty.graph, fault.position, dynamic=faulty.dynamic)
        for position, calls in (edits or {}).items():
            faulty.edit.instead(position, calls)
        if edits:
            yield _mend(faulty, fault.position, fault.call.name)


def _mend(faulty: Faulty, position: int, name: str) -> Mend:
    return Mend(code="input-as-rows", where=faulty.place.at(position), detail=f"{name} on a batch")
