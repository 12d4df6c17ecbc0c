"""The plan for a file as the report's rows, with the proofs that the written bytes give."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from vkfuse.measure.kernel_tables import KernelTable
from vkfuse.measure.stored import Stored, gathered, stored_tables
from vkfuse.measure.tables import TableRead, table_reads
from vkfuse.pages import digest
from vkfuse.patch.faulty import Mend
from vkfuse.patch.plan import PatchOffer, PatchPlan
from vkfuse.patch.sites import QuantizedTable, Table
from vkfuse.pte.enums import ScalarType
from vkfuse.pte.model import PteFile
from vkfuse.report.file_tables import tables_of
from vkfuse.report.model import RUNGS, LossRow, RepairRow, Rung, TableRow
from vkfuse.tables import decisions
from vkfuse.tables.decisions import reason
from vkfuse.tables.floats import rounded
from vkfuse.tables.planes import NibbleRows
from vkfuse.tables.proof import Rows, difference
from vkfuse.tables.proven import EXACT, UNPROVED, Proof, weakest
from vkfuse.tables.quantize import loss

Proofs = Mapping[str, Proof | None]


def written_proofs(plans: Iterable[PatchPlan], written: PteFile) -> Proofs:
    """Compare what a written file has of each table with the input's, by name; None where it has nothing."""
    stored: dict[bytes, list[Stored]] = {}
    for table in stored_tables(table_reads(written)):
        if table.weight.data is not None:
            stored.setdefault(digest(table.weight.data), []).append(table)
    return {plan.table.name: _proof(plan, stored) for plan in plans if plan.offers}


def kept_proofs(file: PteFile, written: PteFile) -> Proofs:
    """Of each table of a file whose every reader reads the same bytes in a written one, by name: it is as it was."""
    there = {_reading(read) for read in table_reads(written)}
    reads = [*table_reads(file)]
    moved = {read.weight.shown for read in reads if _reading(read) not in there or _external(read)}
    return {read.weight.shown: EXACT for read in reads if read.weight.shown not in moved}


def _reading(read: TableRead) -> tuple[object, ...]:
    """Who reads which bytes, and as what."""
    parts = ((of.dtype, of.dims, of.data is not None and digest(of.data)) for of in read.constants)
    return read.operator, read.group, read.low_first, *parts


def _external(read: TableRead) -> bool:
    return any(of.data is None for of in read.constants)


def _proof(plan: PatchPlan, stored: Mapping[bytes, list[Stored]]) -> Proof | None:
    """The weakest proof of what a table got."""
    found = [[*_found(offer, stored, plan.table.numbers.kind)] for offer in plan.offers]
    if not all(found):
        return None
    rows, columns = plan.table.shape
    results = [
        difference(plan.table.numbers.rows, _without_padding(table, columns), rows, columns).proof
        for tables in found
        for table in tables
    ]
    return weakest(results)


def _found(offer: PatchOffer, stored: Mapping[bytes, list[Stored]], kind: ScalarType) -> Iterator[Stored]:
    """Yield what a file has of an offer, by its bytes."""
    weight, *rest = (digest(part.data.cast("B")) for part in offer.stored)
    alike = stored.get(weight, [])
    if isinstance(offer.pack, NibbleRows):
        *rest, ones = rest
        alike = [table for table in alike if _scales(table) == ones]
    elif offer.rung is not decisions.Rung.GATHERED:
        yield from (table for table in alike if _scales(table) == rest[0])
        return
    parts = [stored.get(part, []) for part in rest]
    for table in alike if all(parts) else ():
        scales, *points = (found[0] for found in parts)
        rebuilt = gathered(table, scales, points[0] if points else None)
        if rebuilt is not None:
            yield _rounded(rebuilt, kind)


def _scales(table: Stored) -> bytes | None:
    """The digest of a table's scales, None where it has none in the file."""
    return None if table.scales is None or table.scales.data is None else digest(table.scales.data)


def _rounded(table: Stored, kind: ScalarType) -> Stored:
    """A table whose reader rounds its rows to a type."""
    return replace(table, read=lambda low, high: rounded(table.read(low, high), kind))


def _without_padding(table: Stored, columns: int) -> Rows:
    return lambda low, high: table.read(low, high)[:, :columns]


def table_rows(
    file: PteFile, plans: Iterable[PatchPlan], shown: Proofs | None = None
) -> tuple[TableRow, ...]:
    """Return a row for each table of the input, the largest first; `shown` is what the written file has of them."""
    plans = tuple(plans)
    others = {row.name: replace(row, proof=(shown or {}).get(row.name)) for row in _others(file, plans)}
    fused = [read for read in table_reads(file) if read.weight.keyed]
    rows = [_with_tied(_row(plan, shown), plan, fused, others) for plan in plans]
    return tuple(sorted((*rows, *others.values()), key=lambda row: -math.prod(row.shape)))


def _with_tied(
    row: TableRow, plan: PatchPlan, fused: Iterable[TableRead], others: dict[str, TableRow]
) -> TableRow:
    """A row with what reads the same bytes in the input, tables of named data, which is taken out of `others`."""
    names = {read.weight.name: read.weight.shown for read in fused}
    held = {constant.name for read in fused for constant in read.constants}
    for offer in plan.offers:
        sizes = {digest(part.data.cast("B")).hex(): part.nbytes for part in offer.stored}
        other = others.pop(names.get(next(iter(sizes)), ""), None)
        if other is not None:
            row = replace(
                row,
                consumers=tuple(dict.fromkeys((*row.consumers, *other.consumers))),
                methods=tuple(dict.fromkeys((*row.methods, *other.methods))),
                bytes_before=(row.bytes_before or 0) + other.bytes_after,
                bytes_after=row.bytes_after
                + other.bytes_after
                - sum(sizes[key] for key in held & sizes.keys()),
            )
    return row


def _others(file: PteFile, plans: Iterable[PatchPlan]) -> Iterator[TableRow]:
    """Yield the tables that the plan leaves out: those that are fused, or quantized in another way."""
    planned = {site.read.weight.shown for plan in plans for site in plan.table.sites}
    yield from (row for row in tables_of(file) if row.name not in planned)


def _row(plan: PatchPlan, shown: Proofs | None) -> TableRow:
    table, taken, offers = plan.table, plan.decisions, plan.offers
    worst = max(taken, key=lambda decision: decision.rung)
    left = worst.proposal is None
    kept = table.nbytes if left else 0
    return TableRow(
        name=table.name,
        shape=table.shape,
        bits=table.bits if plan.grid is None else plan.grid.bits,
        group_size=None if plan.grid is None else plan.grid.group_size,
        consumers=tuple(dict.fromkeys(d.site.consumer.value for d in taken)),
        rung=_kept_rung(table) if left else RUNGS[worst.rung],
        how=tuple(dict.fromkeys(code for offer in offers for code in offer.how)),
        reason=reason(worst.refusals),
        bytes_before=table.nbytes,
        bytes_after=kept + _stored_bytes(plan),
        proof=None if shown is None else shown.get(table.name) or (UNPROVED if offers else None),
        methods=tuple(dict.fromkeys(d.site.read.where.method for d in taken)),
    )


def _kept_rung(table: Table) -> Rung:
    """What a table that stays amounts to: a kernel gathers its bytes, and dequantizes what it gathered."""
    return "gathered" if isinstance(table.numbers, KernelTable) else "untouched"


def _stored_bytes(plan: PatchPlan) -> int:
    """Bytes that are stored for a table; what its sites share counts once."""
    parts = (part for offer in plan.offers for part in offer.stored)
    return sum({digest(part.data.cast("B")): part.nbytes for part in parts}.values())


def repair_rows(mends: Iterable[Mend]) -> tuple[RepairRow, ...]:
    """Return a row for each mend."""
    return tuple(
        RepairRow(code=mend.code, node=str(mend.where), detail=mend.detail, method=mend.where.method)
        for mend in mends
    )


def loss_rows(plans: Iterable[PatchPlan]) -> Iterator[LossRow]:
    """Yield a row for each table of floats that is read as what it was asked to become."""
    for plan in plans:
        of = plan.table.numbers
        if isinstance(of, QuantizedTable) and plan.offers:
            rows, _ = plan.table.shape
            lost = loss(of.floats.rows(0, rows), of.rows(0, rows))
            method = plan.table.sites[0].read.where.method
            yield LossRow.of(method, "table", plan.table.name, str(of.setting), lost)
