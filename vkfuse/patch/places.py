"""Where planned tensors are in memory, for how long, and places for those that have to stay longer.

The plan of the input is kept: a tensor that is read later than the plan foresaw gets a place of its own behind all others.
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
