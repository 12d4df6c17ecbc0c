"""Where the state of a method lives, and what a user is told of it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from vkfuse.quantities import some


class Outside(StrEnum):
    """Why a buffer is memory of the method, which crosses over with each call."""

    SEVERAL_METHODS = "other methods have it too, and delegates share no memory of the GPU"
    NO_FLOATS = "it holds no floats"
    READ_AS_WEIGHT = "an operator lays it out for itself when the delegate loads, as a weight"
    SEVERAL_PARTS = "one delegate does not have it alone"


@dataclass(frozen=True, slots=True, kw_only=True)
class StatePlace:
    """A buffer that a method writes, of so many bytes: kept by a delegate, or outside for a reason."""

    buffer: str
    nbytes: int
    outside: Outside | None = None


def place_notes(places: Mapping[str, Sequence[StatePlace]]) -> Iterator[str]:
    """A line for what each method keeps on the GPU, and for each reason why something is not.

    Of state of several methods `state_notes` speaks.
    """
    for method, states in places.items():
        for reason in (None, *(r for r in Outside if r is not Outside.SEVERAL_METHODS)):
            found = [state for state in states if state.outside is reason]
            if found:
                yield f"{method} {_kept(found, reason)}: {some(state.buffer for state in found)}"


def _kept(states: Sequence[StatePlace], reason: Outside | None) -> str:
    size = f"{len(states)} buffer{'s' * (len(states) > 1)} ({sum(s.nbytes for s in states):,} bytes)"
    return (
        f"keeps {size} on the GPU" if reason is None else f"keeps {size} outside of delegates, {reason.value}"
    )
