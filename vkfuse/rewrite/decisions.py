"""What a rule says of a site: a proposal that can be proved and applied, or a refusal."""

from collections.abc import Hashable
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Protocol

import torch

from vkfuse.rewrite.survey import Site, Table

if TYPE_CHECKING:
    from torch import fx

    from vkfuse.rewrite.editor import GraphEditor


class Rung(IntEnum):
    """What becomes of a site, best first."""

    Q4 = 0  # 4-bit pack read by a fused operator
    GATHERED = 1  # integer rows gathered first, dequantized after
    FOLDED = 2  # dequantized to a float constant

    def __str__(self) -> str:
        return self.name.lower()


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a rule does not apply. `code` is stable; `detail` gives the numbers, `hint` what the user can do."""

    code: str
    detail: str
    hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """The whole table rebuilt from what is written, compared with what the program computes.

    `kind` is "exact" (every bit equal) or "rounded" (largest absolute difference given).
    """

    kind: str
    max_abs_error: float


class Proposal(Protocol):
    """A rewrite of one site that has not been applied."""

    @property
    def rung(self) -> Rung:
        """The rung that it reaches."""

    @property
    def operators(self) -> tuple[str, ...]:
        """Vulkan operators that the runtime must have for it."""

    @property
    def how(self) -> tuple[str, ...]:
        """Codes of what it needed besides the plain rewrite."""

    @property
    def constants(self) -> tuple[torch.Tensor, ...]:
        """The tensors that it stores: the weight, its scales where it has any, then the rest."""

    def rebuild(self, low: int, high: int) -> torch.Tensor:
        """Rows [low, high) of the float table from the stored tensors, in the dtype of the original."""

    def rewrite(self, editor: "GraphEditor", site: Site) -> "fx.Node":
        """Insert the new nodes and return the one that replaces the site's node."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What is done with a site, its proof, and why nothing better was.

    Without a proposal the site's operand is folded with all other constant expressions; `folded` is the same for operands
    that are stored once.
    """

    site: Site
    rung: Rung
    proposal: Proposal | None
    refusals: tuple[Refusal, ...]
    proof: Proof
    folded: Hashable = None

    @property
    def constants(self) -> tuple[torch.Tensor, ...]:
        """The tensors that the rewrite stores."""
        return self.proposal.constants if self.proposal is not None else ()

    @property
    def how(self) -> tuple[str, ...]:
        """Codes of what the rewrite needed."""
        return self.proposal.how if self.proposal is not None else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TablePlan:
    """A table with a decision for each of its sites."""

    table: Table
    decisions: tuple[Decision, ...]
