"""Who owns each byte: claims on a file may nest, repeat and overlap; the smallest claim on a byte wins."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from typing import Final, Literal

from vkfuse.pte.place import Place
from vkfuse.pte.values import Extent

LedgerKind = Literal[
    "header", "program", "delegate", "constant", "shader", "named-data", "unreferenced", "padding"
]
_NAMED_USES: Final = 3  # that a label spells out


@dataclass(frozen=True, slots=True)
class Use:
    """What bytes are for: in a delegate of `backend` at a place, or in the file."""

    what: str
    backend: str = ""
    place: Place | None = None

    def __str__(self) -> str:
        """`vulkan:forward/2 graph`."""
        return self.what if self.place is None else f"{self.backend}:{self.place} {self.what}"


@dataclass(frozen=True, slots=True)
class Label:
    """The uses of the same bytes, as one text."""

    uses: tuple[Use, ...]

    def __str__(self) -> str:
        """`shared: a + b + c + 2 more`."""
        if len(self.uses) == 1:
            return str(self.uses[0])
        more = len(self.uses) - _NAMED_USES
        text = "shared: " + " + ".join(map(str, self.uses[:_NAMED_USES]))
        return f"{text} + {more} more" if more > 0 else text

    @property
    def what(self) -> str:
        """`graph`: without places; shared bytes by all that they are for."""
        return " + ".join(dict.fromkeys(use.what for use in self.uses[:_NAMED_USES]))

    @property
    def merged(self) -> str:
        """`vulkan:forward graph`: without the numbers of delegates, which shift from file to file."""
        return str(Label(tuple(replace(u, place=u.place and Place(u.place.method)) for u in self.uses)))


@dataclass(frozen=True, slots=True)
class Claim:
    """Bytes of the file and what they are; of two claims of one size the earlier wins."""

    at: Extent
    kind: LedgerKind
    label: Label


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes that one claim won."""

    at: Extent
    claim: Claim


def divide(claims: Iterable[Claim]) -> Iterator[Piece]:
    """Yield the pieces of all claimed bytes, in file order, without overlap."""
    waiting = sorted(
        (claim.at.offset, claim.at.size, order, claim) for order, claim in enumerate(claims) if claim.at.size
    )
    waiting.reverse()
    active: list[tuple[int, int, Claim]] = []  # smallest claim first
    position = 0
    while waiting or active:
        if not active:
            position = max(position, waiting[-1][0])
        while waiting and waiting[-1][0] <= position:
            _, size, order, claim = waiting.pop()
            heappush(active, (size, order, claim))
        winner = active[0][2]
        end = min(winner.at.end, waiting[-1][0]) if waiting else winner.at.end
        if end > position:
            yield Piece(Extent(position, end - position), winner)
            position = end
        if winner.at.end <= position:
            heappop(active)
