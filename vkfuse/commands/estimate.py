"""How long a run takes, told from the size of its programs before it begins.

Seconds of a free core, fitted to runs without a file before, of MiniLM (342 nodes, 26 MiB), SmolLM2-135M (2,992, 216) and
Llama-3.2-1B's shape (1,620, 1,692): docs/performance.md. A file before that has to be lowered too, as of a program with
state, takes lowering once more.
"""

from collections.abc import Iterable
from typing import Final

from vkfuse.options import BaselineChoice, Options
from vkfuse.program.check import Checked

_IMPORTS: Final = 5.0  # seconds
_NODE: Final = 0.018
_MIB: Final = 0.012


def seconds_of(programs: Iterable[Checked], options: Options) -> float | None:
    """Seconds that programs take; None where nobody knows: a cache, a file before that is lowered too, a trusted .pt2."""
    found = [(of.nodes, of.bytes / (1 << 20)) for of in programs]
    if options.cache is not None or options.baseline is BaselineChoice.STOCK:
        return None
    nodes = [count for count, _ in found if count is not None]
    if len(nodes) < len(found):
        return None
    return _IMPORTS + _NODE * sum(nodes) + _MIB * sum(mib for _, mib in found)
