"""Decide what becomes of each site, from an unmodified program."""

from dataclasses import dataclass

from torch.export import ExportedProgram

from vkfuse.rewrite.constants import Constants
from vkfuse.rewrite.decisions import Decision, Proof, Proposal, Refusal, Rung, TablePlan
from vkfuse.rewrite.prove import prove
from vkfuse.rewrite.rules import RULES, Rule
from vkfuse.rewrite.survey import Consumer, Site, Table, survey

_NO_PROOF = Proof(kind="none", max_abs_error=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Which rules may be used: `fold_lookups` plans a file as ExecuTorch made it before it had a fused lookup."""

    fold_lookups: bool = False

    def rules(self, consumer: Consumer) -> tuple[Rule, ...]:
        """The rules for a consumer, best first."""
        return () if self.fold_lookups and consumer is Consumer.GATHER else RULES[consumer]


def plan(exported: ExportedProgram, policy: Policy | None = None) -> tuple[TablePlan, ...]:
    """A decision for each site of each table of `exported`, each with its proof."""
    constants = Constants(exported)
    return tuple(
        TablePlan(table=table, decisions=tuple(decide(site, table, constants, policy or Policy()) for site in table.sites))
        for table in survey(exported, constants)
    )


def decide(site: Site, table: Table, constants: Constants, policy: Policy) -> Decision:
    """The first rule whose rebuilt table is exact, else fold the table to floats."""
    refusals: list[Refusal] = []
    for rule in policy.rules(site.consumer):
        outcome = rule(site, table, constants)
        if isinstance(outcome, Refusal):
            refusals.append(outcome)
            continue
        proof = prove(site, outcome, constants)
        if proof.kind == "exact":
            return Decision(site=site, rung=outcome.rung, proposal=outcome, refusals=tuple(refusals), proof=proof)
        refusals.append(_not_exact(outcome, proof))
    if site.consumer is Consumer.OTHER:
        refusals.append(_unknown_consumer(site))
    return Decision(site=site, rung=Rung.FOLDED, proposal=None, refusals=tuple(refusals), proof=_NO_PROOF)


def _not_exact(proposal: Proposal, proof: Proof) -> Refusal:
    return Refusal(
        code="not-exact",
        detail=f"the {proposal.rung} table differs from the program's by up to {proof.max_abs_error:.3g}",
        hint="put no arithmetic between the quantized weight and its reader",
    )


def _unknown_consumer(site: Site) -> Refusal:
    target = getattr(site.node.target, "name", lambda: site.node.op)()
    return Refusal(code="consumer-not-fused", detail=f"read by {target}", hint="read the table by a lookup or a linear")
