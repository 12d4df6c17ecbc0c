"""Memory shared by tensors that do not live at the same time, as ExecuTorch shares it.

Source: `greedy` of exir/memory_planning.py in ExecuTorch 1.5.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from vkfuse.multiples import round_up

_ALIGNMENT: Final = 16


@dataclass(frozen=True, slots=True)
class Life:
    """Bytes of a tensor, and the first and the last step that has to do with it."""

    size: int
    first: int
    last: int

    @property
    def aligned(self) -> int:
        """Its bytes, as they are allocated."""
        return round_up(self.size, _ALIGNMENT)

    def meets(self, other: "Life") -> bool:
        """Whether both live at one step."""
        return self.first <= other.last and other.first <= self.last


@dataclass(slots=True)
class _Memory:
    """Memory of several tensors, each at an offset."""

    size: int
    held: list[tuple[int, Life]]

    def offset(self, life: Life, *, beside: bool) -> int | None:
        """Return where a tensor may be: at the start, or `beside` those that live when it does; None for nowhere."""
        ends = [at + other.aligned for at, other in self.held if life.meets(other)]
        if not ends:
            return 0
        end = max(ends)
        return end if beside and 0 < end <= self.size - life.aligned else None


def planned(lives: Sequence[Life], *, beside: bool) -> tuple[list[tuple[int, int]], int]:
    """Return for each tensor the number of its memory and its offset among all, and the bytes of all.

    Larger ones first, of equal ones the last. `beside`: a memory may have several at a time.
    """
    memories: list[_Memory] = []
    found = [(0, 0)] * len(lives)
    for index in sorted(range(len(lives)), key=lambda at: (lives[at].aligned, at), reverse=True):
        life = lives[index]
        number, offset = _place(memories, life, beside=beside)
        memories[number].held.append((offset, life))
        found[index] = number, offset
    starts = [0]
    for memory in memories:
        starts.append(starts[-1] + memory.size)
    return [(number, starts[number] + offset) for number, offset in found], starts[-1]


def _place(memories: list[_Memory], life: Life, *, beside: bool) -> tuple[int, int]:
    """Return a memory for a tensor, a new one where none has room, and the offset there."""
    for among in dict.fromkeys((False, beside)):
        for number, memory in enumerate(memories):
            offset = memory.offset(life, beside=among)
            if offset is not None:
                return number, offset
    memories.append(_Memory(life.aligned, []))
    return len(memories) - 1, 0
