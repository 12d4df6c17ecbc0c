"""The last resort for a lookup that dequantizes by itself: look up in the table dequantized to floats."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import fx

from vkfuse.program.tensors import array, tensor
from vkfuse.rewrite.constants import Constants
from vkfuse.rewrite.prove import original_rows
from vkfuse.rewrite.sites import Site, Table
from vkfuse.tables.decisions import Rung
from vkfuse.tables.floats import Array

if TYPE_CHECKING:
    from vkfuse.rewrite.editor import GraphEditor

aten = torch.ops.aten


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldedLookup:
    """A float table [rows, columns], read by ``aten.embedding``."""

    values: torch.Tensor
    name: str
    how: tuple[str, ...] = ()
    rung: Rung = Rung.FOLDED
    operators: tuple[str, ...] = ()

    @property
    def constants(self) -> tuple[torch.Tensor, ...]:
        """The float table."""
        return (self.values,)

    def rebuild(self, low: int, high: int) -> Array:
        """Rows [low, high) of the table, [high - low, columns]."""
        return array(self.values[low:high])

    def rewrite(self, editor: "GraphEditor", site: Site) -> fx.Node:
        """Rows for each index, in the shape of the site."""
        table = editor.constant(self.values, f"{self.name}.float")
        return editor.call(aten.embedding.default, table, editor.node(site.lookups()))


def fold_lookup(site: Site, table: Table, constants: Constants) -> FoldedLookup | None:
    """The folded table of a lookup that dequantizes by itself, None for all others: constant folding serves them."""
    if site.operand is not None or site.grid is None:
        return None
    rows = original_rows(site, constants)(0, site.grid.rows)
    return FoldedLookup(values=tensor(rows).to(site.node.meta["val"].dtype), name=table.name)
