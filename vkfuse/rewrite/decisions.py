"""What a rule for graphs says of a site, a proposal that can be proved and applied; and applying what was decided."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import torch
from torch.export import ExportedProgram

from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.sites import Site, Table
from vkfuse.tables import decisions
from vkfuse.tables.decisions import Rung
from vkfuse.tables.floats import Array

Held: TypeAlias = Callable[[str], torch.Tensor | None]  # what is stored under a name
Made: TypeAlias = Callable[[GraphEditor, Site, Held], torch.Tensor]


class Pack(Protocol):
    """A table in another form."""

    def rebuild(self, low: int, high: int) -> Array:
        """Rows [low, high) of the float table, in the type of the original."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Proposal:
    """A rewrite of one site of a graph, by a `pack` of its table.

    `stored` are the tensors that it needs, the weight first, then its scales where it has any; they are named after the
    table. `made` computes what replaces the site's node.
    """

    name: str
    pack: Pack
    stored: Mapping[str, torch.Tensor]
    made: Made
    rung: Rung
    operators: tuple[str, ...] = ()
    how: tuple[str, ...] = ()

    def rebuild(self, low: int, high: int) -> Array:
        """Rows [low, high) of the float table from what is stored, in the type of the original."""
        return self.pack.rebuild(low, high)

    def rewrite(self, editor: GraphEditor, site: Site) -> torch.Tensor:
        """Insert the new nodes and return what replaces the site's node."""

        def held(what: str) -> torch.Tensor | None:
            value = self.stored.get(what)
            return None if value is None else editor.stored(value, f"{self.name}.{what}")

        return self.made(editor, site, held)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision(decisions.Decision[Site, Proposal]):
    """What is done with a site of a graph: without a proposal its operand is folded with all other constants.

    `folded` is the same for sites whose float table is stored once.
    """

    folded: Hashable = None

    @property
    def constants(self) -> tuple[torch.Tensor, ...]:
        """The tensors that the rewrite stores."""
        return tuple(self.proposal.stored.values()) if self.proposal is not None else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TablePlan:
    """A table with a decision for each of its sites."""

    table: Table
    decisions: tuple[Decision, ...]


def apply(exported: ExportedProgram, plans: Sequence[TablePlan]) -> ExportedProgram:
    """`exported` with every proposal of `plans` in place, sites in the order of the graph; folding comes later."""
    editor = GraphEditor(exported)
    order = {node: i for i, node in enumerate(exported.graph.nodes)}
    decisions = [d for plan in plans for d in plan.decisions if d.proposal is not None]
    for decision in sorted(decisions, key=lambda d: order[d.site.node]):
        if decision.proposal is not None:
            with editor.before(decision.site.node):
                editor.replace(decision.site.node, decision.proposal.rewrite(editor, decision.site))
    return editor.finish()
