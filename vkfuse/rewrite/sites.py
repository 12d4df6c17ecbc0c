"""What the survey of a graph finds: tables, and each use of one."""

from collections.abc import Hashable
from dataclasses import dataclass

from torch import fx

from vkfuse.options import VulkanOptions
from vkfuse.tables.floats import Array
from vkfuse.tables.grid import Grid
from vkfuse.tables.readers import Consumer, Readers

UNCHOSEN = VulkanOptions()
READERS = frozenset({Consumer.GATHER, Consumer.MATMUL, Consumer.CONVOLVE})


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Site:
    """One use of a table.

    `operand` is the float weight that `node` reads; None where `node` dequantizes by itself. With `transposed` the
    operand is [columns, rows]; what a convolution reads has a column for each input and pixel. `indices` is set for a
    gather, `grid` is None where the numbers cannot be read.
    """

    node: fx.Node
    consumer: Consumer
    operand: fx.Node | None
    grid: Grid | None
    transposed: bool = False
    indices: fx.Node | None = None

    def numbers(self) -> Grid:
        """The grid. Raises ValueError where it cannot be read; no rule is asked about such a site."""
        if self.grid is None:
            raise ValueError(f"{self.node.name} has no readable table")
        return self.grid

    def lookups(self) -> fx.Node:
        """The indices of a gather. Raises ValueError for any other site."""
        if self.indices is None:
            raise ValueError(f"{self.node.name} is no gather")
        return self.indices


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Table:
    """A constant quantized weight with all of its sites, told apart by `identity`, which is the same in all programs.

    `elsewhere` is what other methods of the same file do with it, `choices` the user's for the file; `factors` are the
    scales [groups, padded rows] that a 4-bit matmul of the file stores for it, None where none does.
    """

    name: str
    identity: Hashable
    sites: tuple[Site, ...]
    elsewhere: frozenset[Consumer] = frozenset()
    choices: VulkanOptions = UNCHOSEN
    factors: Array | None = None

    @property
    def consumers(self) -> frozenset[Consumer]:
        """What is done with it anywhere in the file."""
        return self.elsewhere.union(site.consumer for site in self.sites)

    @property
    def readers(self) -> Readers:
        """The same as a pack depends on it."""
        return Readers(
            consumers=self.consumers, layout=self.choices.lookup_layout, scales=self.choices.scales
        )
