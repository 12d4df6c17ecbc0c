"""Operators on constants that the runtime lacks, or whose result it wants as a constant: computed beforehand."""

from collections.abc import Iterator

from vkfuse.patch.faulty import Faulty, Mend
from vkfuse.patch.folding import Folding, known_values


def fold_constants(faulty: Faulty) -> Iterator[Mend]:
    """Compute all that a delegate makes of constants, where that serves one of its faults."""
    calls = faulty.calls()
    if len(calls) != 1:
        return
    ((number, call),) = calls
    known = known_values(faulty.method.method)
    given = {
        inside: known[outside]
        for inside, outside in zip(faulty.graph.input_ids, call.args, strict=False)
        if outside in known
    }
    folding = Folding(faulty.graph, given)
    served = [fault.call.name for fault in faulty.faults if folding.serves(fault.call)]
    if served and folding.apply(faulty.edit):
        inputs = faulty.graph.input_ids
        kept = [arg for at, arg in enumerate(call.args) if at >= len(inputs) or inputs[at] not in given]
        faulty.method.rewire(number, tuple(kept))
        faulty.method.drop_unread(known)
        yield Mend(
            code="constants-folded", where=faulty.place, detail=f"for {', '.join(dict.fromkeys(served))}"
        )
