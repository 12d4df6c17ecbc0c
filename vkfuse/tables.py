"""Plans as the report's rows: what each table was, what became of it, what it costs."""

import math
from collections.abc import Iterable, Mapping, Sequence

import torch

from vkfuse.report.model import Proof, Rung, TableRow
from vkfuse.rewrite import decisions
from vkfuse.rewrite.content import content
from vkfuse.rewrite.decisions import Decision, TablePlan
from vkfuse.rewrite.grids import Grid

_RUNGS: Mapping[decisions.Rung, Rung] = {
    decisions.Rung.Q4: "q4",
    decisions.Rung.GATHERED: "gathered",
    decisions.Rung.FOLDED: "folded",
}


def table_rows(plans: Sequence[TablePlan], before: Sequence[TablePlan]) -> tuple[TableRow, ...]:
    """A row for each table, the largest first; `before` is the plan of the baseline, empty where it is another file."""
    sizes = {p.table.identity: plan_bytes(p) for p in before}
    rows = [_row(plan, sizes.get(plan.table.identity)) for plan in plans]
    return tuple(sorted(rows, key=lambda row: -math.prod(row.shape)))


def _row(plan: TablePlan, before: int | None) -> TableRow:
    worst = max(plan.decisions, key=lambda d: d.rung)
    grid = next((d.site.grid for d in plan.decisions if d.site.grid is not None), None)
    return TableRow(
        name=plan.table.name,
        shape=_shape(grid, worst),
        bits=0 if grid is None else grid.bits,
        group_size=None if grid is None else grid.group_size,
        consumers=tuple(dict.fromkeys(d.site.consumer.value for d in plan.decisions)),
        rung=_RUNGS[worst.rung],
        how=tuple(dict.fromkeys(code for d in plan.decisions for code in d.how)),
        reason=_reason(worst),
        bytes_before=before,
        bytes_after=plan_bytes(plan),
        proof=_proof(plan.decisions),
    )


def _shape(grid: Grid | None, decision: Decision) -> tuple[int, ...]:
    if grid is not None:
        return (grid.rows, grid.columns)
    operand = decision.site.operand
    return tuple(operand.meta["val"].shape) if operand is not None else ()


def _reason(decision: Decision) -> str:
    """Why no better rung: the last refusal is that of the rule which came closest."""
    if not decision.refusals or decision.rung is decisions.Rung.Q4:
        return ""
    refusal = decision.refusals[-1]
    text = f"{refusal.code}: {refusal.detail}"
    return f"{text}; {refusal.hint}" if refusal.hint else text


def _proof(made: Iterable[Decision]) -> Proof:
    """The weakest proof of a table's sites."""
    worst = max((d.proof for d in made), key=lambda proof: proof.max_abs_error)
    return Proof(kind="exact" if worst.kind == "exact" else "rounded", max_abs_error=worst.max_abs_error)


def plan_bytes(plan: TablePlan) -> int:
    """Bytes of the constants that a table's sites read in the file; what they share counts once."""
    stored = {content(t): t.numel() * t.element_size() for d in plan.decisions for t in _constants(d)}
    folded = {_folded(d) for d in plan.decisions if d.proposal is None}
    return sum(stored.values()) + sum(size for _, size in folded)


def _constants(decision: Decision) -> tuple[torch.Tensor, ...]:
    return decision.proposal.constants if decision.proposal is not None else ()


def _folded(decision: Decision) -> tuple[str, int]:
    """The float constant that folding makes of a site's operand: its node's name, and its bytes."""
    operand = decision.site.operand
    if operand is None:
        return ("", 0)
    value = operand.meta["val"]
    return (operand.name, value.numel() * value.element_size())
