"""Who reads a table, and how lookups of it are to be stored."""

from dataclasses import dataclass
from enum import StrEnum

from vkfuse.options import DEFAULT_LAYOUT, LookupLayout, Scales


class Consumer(StrEnum):
    """What a site does with its table."""

    GATHER = "gather"
    MATMUL = "matmul"
    CONVOLVE = "convolve"
    CONSTANT_GATHER = "constant-gather"  # looked up with constant indices: what is read is itself a constant
    OTHER = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class Readers:
    """What all sites of a table do with it, and how lookups are stored: layout (where no linear reads it), scales."""

    consumers: frozenset[Consumer]
    layout: LookupLayout = DEFAULT_LAYOUT
    scales: Scales = Scales.AUTO

    @property
    def looked_up(self) -> bool:
        """Whether a lookup reads it."""
        return Consumer.GATHER in self.consumers

    @property
    def multiplied(self) -> bool:
        """Whether a matmul reads it."""
        return Consumer.MATMUL in self.consumers

    @property
    def linear_layout(self) -> bool:
        """Whether it is packed as linears read it: there is only one pack, so one linear anywhere decides for all."""
        return self.multiplied or self.layout is LookupLayout.LINEAR
