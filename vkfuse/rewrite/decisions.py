"""What a rule for graphs says of a site: a proposal that can be proved and applied."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch

from vkfuse.rewrite.sites import Site, Table
from vkfuse.tables import decisions

if TYPE_CHECKING:
    from torch import fx

    from vkfuse.rewrite.editor import GraphEditor


class Proposal(decisions.Offer, Protocol):
    """A rewrite of one site of a graph."""

    @property
    def constants(self) -> tuple[torch.Tensor, ...]:
        """The tensors that it stores: the weight, its scales where it has any, then the rest."""

    def rewrite(self, editor: "GraphEditor", site: Site) -> "fx.Node":
        """Insert the new nodes and return the one that replaces the site's node."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision(decisions.Decision[Site, Proposal]):
    """What is done with a site of a graph: without a proposal its operand is folded with all other constants."""

    @property
    def constants(self) -> tuple[torch.Tensor, ...]:
        """The tensors that the rewrite stores."""
        return self.proposal.constants if self.proposal is not None else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TablePlan:
    """A table with a decision for each of its sites."""

    table: Table
    decisions: tuple[Decision, ...]
