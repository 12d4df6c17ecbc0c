"""The plan for a file as the report's rows, with the proofs that the written bytes give."""

import math
from collections.abc import Iterable, Iterator, Mapping

from vkfuse.measure.stored import Stored, stored_tables
from vkfuse.measure.tables import table_reads
from vkfuse.pages import digest
from vkfuse.patch.faulty import Mend
from vkfuse.patch.plan import PatchDecision, PatchPlan
from vkfuse.pte.model import PteFile
from vkfuse.report.file_tables import tables_of
from vkfuse.report.model import RepairRow, TableRow
from vkfuse.tables.floats import Array
from vkfuse.tables.proof import UNPROVED, Proof, Rows, difference

Proofs = Mapping[str, Proof | None]
_Content = tuple[bytes, bytes]


def written_proofs(plans: Iterable[PatchPlan], written: PteFile) -> Proofs:
    """Compare what a written file has of each table with the input's, by name; None where it has nothing."""
    stored: dict[_Content, list[Stored]] = {}
    for table in stored_tables(table_reads(written)):
        if table.scales is not None and table.weight.data is not None and table.scales.data is not None:
            stored.setdefault((digest(table.weight.data), digest(table.scales.data)), []).append(table)
    return {plan.table.name: _proof(plan, stored) for plan in plans if any(d.pack for d in plan.decisions)}


def _proof(plan: PatchPlan, stored: Mapping[_Content, list[Stored]]) -> Proof | None:
    """The weakest proof of what a table got."""
    found = [stored.get(content) for content in _contents(plan)]
    if not all(found):
        return None
    rows, columns = plan.table.shape
    results = [
        difference(plan.table.numbers.rows, _without_padding(table, columns), rows, columns).proof
        for tables in found
        for table in tables or ()
    ]
    return max(results, key=lambda proof: (proof.kind != "exact", proof.max_abs_error or 0.0))


def _contents(plan: PatchPlan) -> set[_Content]:
    """Weights and scales that are stored for a table, by their bytes."""
    return {_content(*decision.stored) for decision in plan.decisions if decision.stored}


def _without_padding(table: Stored, columns: int) -> Rows:
    return lambda low, high: table.read(low, high)[:, :columns]


def _content(weight: Array, scales: Array) -> _Content:
    return digest(weight.data.cast("B")), digest(scales.data.cast("B"))


def table_rows(
    file: PteFile, plans: Iterable[PatchPlan], shown: Proofs | None = None
) -> tuple[TableRow, ...]:
    """Return a row for each table of the input, the largest first; `shown` is what the written file has of them."""
    plans = tuple(plans)
    rows = [_row(plan, shown) for plan in plans]
    rows += _others(file, {site.read.weight.shown for plan in plans for site in plan.table.sites})
    return tuple(sorted(rows, key=lambda row: -math.prod(row.shape)))


def _others(file: PteFile, planned: set[str]) -> Iterator[TableRow]:
    """Yield the tables that the plan leaves out: those that are fused, or quantized in another way."""
    yield from (row for row in tables_of(file) if row.name not in planned)


def _row(plan: PatchPlan, shown: Proofs | None) -> TableRow:
    table, decisions = plan.table, plan.decisions
    packs = {id(d.pack): d.pack for d in decisions if d.pack is not None}
    left = [decision for decision in decisions if decision.pack is None]
    worst = left[0] if left else decisions[0]
    kept = table.nbytes if left else 0
    return TableRow(
        name=table.name,
        shape=table.shape,
        bits=table.bits if plan.grid is None else plan.grid.bits,
        group_size=None if plan.grid is None else plan.grid.group_size,
        consumers=tuple(dict.fromkeys(d.site.consumer.value for d in decisions)),
        rung="untouched" if left else "q4",
        how=tuple(dict.fromkeys(code for pack in packs.values() for code in pack.how)),
        reason=_reason(worst),
        bytes_before=table.nbytes,
        bytes_after=kept + _stored_bytes(plan),
        proof=(shown.get(table.name) or UNPROVED) if shown is not None and packs else None,
        methods=tuple(dict.fromkeys(d.site.read.where.method for d in decisions)),
    )


def _stored_bytes(plan: PatchPlan) -> int:
    """Bytes that are stored for a table; what its sites share counts once."""
    parts = (part for decision in plan.decisions for part in decision.stored)
    return sum({digest(part.data.cast("B")): part.nbytes for part in parts}.values())


def _reason(decision: PatchDecision) -> str:
    """Why a site stays as it is."""
    if decision.pack is not None or not decision.choice.refusals:
        return ""
    return decision.choice.refusals[-1].text


def repair_rows(mends: Iterable[Mend]) -> tuple[RepairRow, ...]:
    """Return a row for each mend."""
    return tuple(
        RepairRow(code=mend.code, node=str(mend.where), detail=mend.detail, method=mend.where.method)
        for mend in mends
    )
