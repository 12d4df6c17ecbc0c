"""Which operators of a file do not carry NaN and infinity as torch does."""

from collections import Counter
from collections.abc import Mapping

from vkfuse.lint.operands import Reader
from vkfuse.pte.delegates import vulkan_delegates
from vkfuse.pte.model import PteFile
from vkfuse.runtime.codes import Code
from vkfuse.runtime.operators import record_of
from vkfuse.runtime.spelling import FLOATS
from vkfuse.runtime.versions import Runtime


def not_carried(pte: PteFile, runtime: Runtime) -> Mapping[str, int]:
    """Return how often each is called on floats, most often first. FormatError."""
    found: Counter[str] = Counter()
    for delegate in vulkan_delegates(pte).values():
        reader = Reader(delegate)
        for call in delegate.graph.chain:
            record = record_of(call.name, runtime.key)
            if Code.NOT_FINITE not in record.departs:
                continue
            ops = reader.operands(call)
            floats = any(tensor.dtype in FLOATS for tensor in ops.tensors())
            found[call.name] += floats and not (record.carry and record.carry(ops))
    return dict((+found).most_common())
