"""Plans as the report's rows: what each table was, what became of it in each method, what it costs."""

import math
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace

from vkfuse.measure.names import DIGITS
from vkfuse.pipeline.method import Methods
from vkfuse.pipeline.proofs import proofs_of
from vkfuse.program.content import Bits, content, plain_bytes
from vkfuse.quantities import bits_per_weight
from vkfuse.report.model import RUNGS, Report, TableRow
from vkfuse.rewrite.decisions import Decision
from vkfuse.tables.decisions import Rung, reason
from vkfuse.tables.grid import Grid
from vkfuse.tables.proven import UNPROVED


@dataclass(frozen=True, slots=True, kw_only=True)
class _Made:
    """A decision, and the method that it is about."""

    method: str
    decision: Decision


def table_rows(methods: Methods, before: Methods) -> tuple[TableRow, ...]:
    """A row for each table of all methods, the largest first; `before` is empty where the baseline is another file."""
    names = _names(methods)
    sizes = {identity: _bytes(made) for identity, made in _by_table(before).items()}
    shown = [m.proved for m in methods if m.proved is not None]
    proofs = proofs_of(shown)
    rows = [
        replace(
            _row(names[identity], made, sizes.get(identity)),
            proof=(proofs.get(identity) or UNPROVED) if shown else None,
        )
        for identity, made in _by_table(methods).items()
    ]
    return tuple(sorted(rows, key=lambda row: -math.prod(row.shape)))


def growth_notes(report: Report) -> Iterator[str]:
    """That a file is larger than what it was made of, where it holds tables as floats."""
    folded = [row for row in report.tables if row.rung == RUNGS[Rung.FOLDED]]
    given, made = report.input, report.output
    if folded and given is not None and made is not None and made.bytes > given.bytes:
        taken = sum(row.bytes_after for row in folded)
        names = ", ".join(row.name for row in folded[:_NAMED]) + (", ..." if len(folded) > _NAMED else "")
        sizes = f"{made.bytes:,} bytes of {given.bytes:,}"
        yield f"the file is larger than its input, {sizes}: quantized tables became {taken:,} bytes of floats ({names})"


_NAMED = 4  # tables in a note


def stored_names(methods: Methods) -> dict[str, str]:
    """Names of tables, and of what may be one in float, by the first digits of the SHA-256 of the bytes stored of them."""
    floats = {
        content(value)[0][:DIGITS]: name
        for m in reversed(methods)
        for name, value in m.program.exported.state_dict.items()
        if value.ndim == 2 and value.is_floating_point() and name in m.prepared.exported.state_dict
    }
    return floats | {
        content(constant)[0][:DIGITS]: plan.table.name
        for m in reversed(methods)
        for plan in m.plans
        for decision in plan.decisions
        for constant in decision.constants[:1]
    }


def _names(methods: Methods) -> dict[Hashable, str]:
    """The name of each table in the first method that has it."""
    return {plan.table.identity: plan.table.name for m in reversed(methods) for plan in m.plans}


def _by_table(methods: Methods) -> dict[Hashable, list[_Made]]:
    """All decisions about each table."""
    found: dict[Hashable, list[_Made]] = {}
    for m in methods:
        for plan in m.plans:
            made = (_Made(method=m.name, decision=decision) for decision in plan.decisions)
            found.setdefault(plan.table.identity, []).extend(made)
    return found


def _row(name: str, made: Sequence[_Made], before: int | None) -> TableRow:
    taken = [m.decision for m in made]
    worst = max(taken, key=lambda d: d.rung)
    grid = next((d.site.grid for d in taken if d.site.grid is not None), None)
    shape, after = _shape(grid, worst), _bytes(made)
    return TableRow(
        name=name,
        shape=shape,
        bits=0 if grid is None else grid.bits,
        group_size=None if grid is None else grid.group_size,
        consumers=tuple(dict.fromkeys(d.site.consumer.value for d in taken)),
        rung=RUNGS[worst.rung],
        how=tuple(dict.fromkeys(code for d in taken for code in d.how)),
        reason=_reason(worst) + _where(worst, made),
        bytes_before=before,
        bytes_after=after,
        bits_per_weight=bits_per_weight(after, math.prod(shape)),
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
    """Why no better rung."""
    return "" if decision.rung is Rung.Q4 else reason(decision.refusals)


def _bytes(made: Sequence[_Made]) -> int:
    """Bytes of the constants that a table's sites read in the file; what they share counts once."""
    taken = [m.decision for m in made]
    kept = {Bits(plain_bytes(t)): t.numel() * t.element_size() for d in taken for t in d.constants}
    folded = {d.folded: _folded_bytes(d) for d in taken if d.proposal is None}
    return sum(kept.values()) + sum(folded.values())


def _folded_bytes(decision: Decision) -> int:
    """Bytes of the float constant that folding makes of a site's operand."""
    if decision.site.operand is None:
        return 0
    value = decision.site.operand.meta["val"]
    return int(value.numel() * value.element_size())
