"""Where planned tensors are in memory, for how long, and places for those that have to stay longer.

The plan of the input is kept: a tensor that is read later than the plan foresaw gets a place of its own behind all others.
A new plan shares memory by tensors that do not live at one time: `greedy` of exir/memory_planning.py in ExecuTorch 1.5.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from vkfuse.multiples import round_up
from vkfuse.pte.model import Allocation, Tensor, Value

_ALIGNMENT: Final = 16  # exir/memory_planning.py


def overlaps(one: Tensor, other: Tensor) -> bool:
    """Whether two planned tensors share bytes."""
    a, b = one.allocation, other.allocation
    if a is None or b is None or a.memory_id != b.memory_id:
        return False
    return a.offset < b.offset + other.nbytes and b.offset < a.offset + one.nbytes


@dataclass(slots=True)
class Plan:
    """The planned memory of a method: `sizes` of its buffers, as `Method.non_const_buffer_sizes`."""

    sizes: list[int]

    def apart(self, tensor: Tensor) -> Tensor:
        """Return a planned tensor at a place that no other has."""
        return tensor if tensor.allocation is None else self.placed(tensor, tensor.allocation.memory_id)

    def placed(self, tensor: Tensor, memory: int = 1) -> Tensor:
        """Return a tensor at a place of its own in a memory; the first is there where something is planned."""
        self.sizes += [0] * (memory + 1 - len(self.sizes))
        offset = round_up(self.sizes[memory], _ALIGNMENT)
        self.sizes[memory] = offset + round_up(tensor.nbytes, _ALIGNMENT)
        return replace(tensor, allocation=Allocation(memory_id=memory, offset=offset))


def clash(tensor: Tensor, others: Iterable[int], values: Sequence[Value]) -> bool:
    """Whether any of the values `others` takes the memory of a tensor."""
    return any(
        overlaps(tensor, value)
        for index in others
        if isinstance(value := values[index], Tensor) and value is not tensor
    )


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
