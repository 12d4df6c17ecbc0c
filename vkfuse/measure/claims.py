"""Who owns each byte: claims on a file may nest, repeat and overlap; the smallest claim on a byte wins."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from heapq import heappop, heappush

from vkfuse.pte.findings import LedgerKind
from vkfuse.pte.values import Extent


@dataclass(frozen=True, slots=True)
class Claim:
    """Bytes of the file and what they are; of two claims of one size the earlier wins."""

    at: Extent
    kind: LedgerKind
    label: str


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
