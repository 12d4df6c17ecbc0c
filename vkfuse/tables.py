"""Plans as the report's rows: what each table was, what became of it in each method, what it costs."""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from vkfuse.measure.tables import NAME_DIGITS
from vkfuse.report.model import LookupRow, Proof, Rung, TableRow
from vkfuse.rewrite import decisions
from vkfuse.rewrite.content import content
from vkfuse.rewrite.decisions import Decision, TablePlan
from vkfuse.rewrite.grids import Grid

_RUNGS: Mapping[decisions.Rung, Rung] = {
    decisions.Rung.Q4: "q4",
    decisions.Rung.GATHERED: "gathered",
    decisions.Rung.FOLDED: "folded",
}


Plans = Mapping[str, Sequence[TablePlan]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Made:
    """A decision, and the method that it is about."""

    method: str
    decision: Decision


Proofs = Mapping[Hashable, decisions.Proof | None]


def table_rows(plans: Plans, before: Plans, proofs: Proofs | None = None) -> tuple[TableRow, ...]:
    """A row for each table of all methods, the largest first.

    `before` is the plan of the baseline, empty where it is another file; `proofs` are of the written file, None where
    nothing is written.
    """
    names = {p.table.identity: p.table.name for made in reversed([*plans.values()]) for p in made}
    sizes = {identity: _bytes(made) for identity, made in _by_table(before).items()}
    rows = [
        replace(
            _row(names[identity], made, sizes.get(identity)),
            proof=None if proofs is None else _proof(proofs.get(identity)),
        )
        for identity, made in _by_table(plans).items()
    ]
    return tuple(sorted(rows, key=lambda row: -math.prod(row.shape)))


def named_lookups(lookups: Sequence[LookupRow], plans: Plans) -> tuple[LookupRow, ...]:
    """Lookups as the file has them, each with its table's name in place of the first digits of its bytes' SHA-256."""
    names = {
        content(constant)[0][:NAME_DIGITS]: plan.table.name
        for made in reversed([*plans.values()])
        for plan in made
        for decision in plan.decisions
        for constant in _constants(decision)[:1]
    }
    return tuple(replace(row, table=names.get(row.table, row.table)) for row in lookups)


def _by_table(plans: Plans) -> dict[Hashable, list[_Made]]:
    """All decisions about each table."""
    found: dict[Hashable, list[_Made]] = {}
    for method, made in plans.items():
        for plan in made:
            decisions = (_Made(method=method, decision=decision) for decision in plan.decisions)
            found.setdefault(plan.table.identity, []).extend(decisions)
    return found


def _row(name: str, made: Sequence[_Made], before: int | None) -> TableRow:
    taken = [m.decision for m in made]
    worst = max(taken, key=lambda d: d.rung)
    grid = next((d.site.grid for d in taken if d.site.grid is not None), None)
    return TableRow(
        name=name,
        shape=_shape(grid, worst),
        bits=0 if grid is None else grid.bits,
        group_size=None if grid is None else grid.group_size,
        consumers=tuple(dict.fromkeys(d.site.consumer.value for d in taken)),
        rung=_RUNGS[worst.rung],
        how=tuple(dict.fromkeys(code for d in taken for code in d.how)),
        reason=_reason(worst) + _where(worst, made),
        bytes_before=before,
        bytes_after=_bytes(made),
        proof=None,
        methods=_methods(made),
    )


def _methods(made: Sequence[_Made]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(m.method for m in made))


def _where(worst: Decision, made: Sequence[_Made]) -> str:
    """The methods of the worst decisions, where others do better."""
    same = _methods([m for m in made if m.decision.rung is worst.rung])
    return "" if same == _methods(made) else f" (in {', '.join(same)})"


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


def _proof(proof: decisions.Proof | None) -> Proof:
    """What the file showed of a table, none where it has no bytes to compare."""
    if proof is None:
        return Proof(kind="none", max_abs_error=None)
    return Proof(kind="exact" if proof.kind == "exact" else "rounded", max_abs_error=proof.max_abs_error)


def _bytes(made: Sequence[_Made]) -> int:
    """Bytes of the constants that a table's sites read in the file; what they share counts once."""
    taken = [m.decision for m in made]
    stored = {content(t): t.numel() * t.element_size() for d in taken for t in _constants(d)}
    folded = {d.folded: _folded_bytes(d) for d in taken if d.proposal is None}
    return sum(stored.values()) + sum(folded.values())


def _constants(decision: Decision) -> tuple[torch.Tensor, ...]:
    return decision.proposal.constants if decision.proposal is not None else ()


def _folded_bytes(decision: Decision) -> int:
    """Bytes of the float constant that folding makes of a site's operand."""
    if decision.site.operand is None:
        return 0
    value = decision.site.operand.meta["val"]
    return int(value.numel() * value.element_size())
