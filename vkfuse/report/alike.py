"""A report for a page: rows that are alike but for a number, as of equal layers, as one, and the smallest together."""

import re
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import replace
from typing import Final, TypeVar

from vkfuse.measure.ledger import LedgerEntry
from vkfuse.report.model import Diff, Report, SizeChange, TableChange, TableRow
from vkfuse.tables.proven import weakest

_NUMBER: Final = re.compile(r"\d+")
_HASH: Final = re.compile(r"[0-9a-f]{12}")
_SMALL: Final = 1e-3  # of the file: labels, and changes of labels, below it are one row
_SEVERAL: Final = 2  # rows that are worth a sum
_Row = TypeVar("_Row", TableRow, TableChange)
_Sized = TypeVar("_Sized", bound=LedgerEntry | SizeChange)


def condensed(report: Report) -> Report:
    """Return the report with `layers.*.mlp.gate_proj.weight x30` in the place of thirty tables, and of their changes.

    Labels of less than a thousandth of the file, and changes of so little, are one row, `[12 others]`.
    """
    return replace(
        report,
        tables=_together(report.tables, _shape, _sum_of_tables),
        ledger=_larger(report.ledger, [entry.bytes for entry in report.ledger], _sum_of_labels),
        diff=report.diff and _condensed(report.diff),
    )


def _condensed(diff: Diff) -> Diff:
    least = _SMALL * max(diff.total.before or 0, diff.total.after or 0)
    sizes = [abs(change.delta) for change in diff.ledger]
    return replace(
        diff,
        tables=_together(
            diff.tables, _kind, lambda rows: replace(rows[0], delta=sum(row.delta for row in rows))
        ),
        ledger=_larger(diff.ledger, sizes, _sum_of_sizes, least),
    )


def _larger(
    rows: Sequence[_Sized],
    sizes: Sequence[int],
    add: Callable[[list[_Sized]], _Sized],
    least: float | None = None,
) -> tuple[_Sized, ...]:
    """Return the rows of at least a size, a thousandth of all unless given, and the sum of the smaller ones."""
    limit = _SMALL * sum(sizes) if least is None else least
    small = [row for row, size in zip(rows, sizes, strict=True) if size < limit]
    kept = [row for row, size in zip(rows, sizes, strict=True) if size >= limit]
    return tuple(rows) if len(small) < _SEVERAL else (*kept, add(small))


def _sum_of_labels(of: list[LedgerEntry]) -> LedgerEntry:
    total, count = sum(entry.bytes for entry in of), sum(entry.count for entry in of)
    return replace(of[0], label=f"[{len(of)} others]", bytes=total, count=count)


def _sum_of_sizes(of: list[SizeChange]) -> SizeChange:
    before, after = (
        sum(filter(None, sizes)) for sizes in zip(*((c.before, c.after) for c in of), strict=True)
    )
    return SizeChange.of(f"[{len(of)} others]", of[0].kind, before, after)


def _together(
    rows: Iterable[_Row], kind: Callable[[_Row], Hashable], add: Callable[[list[_Row]], _Row]
) -> tuple[_Row, ...]:
    """Return rows whose names and kinds are alike as one, where the first of them stands."""
    found: dict[Hashable, list[_Row]] = {}
    for row in rows:
        found.setdefault((_template(row.name), kind(row)), []).append(row)
    return tuple(
        of[0] if len(of) == 1 else replace(add(of), name=_name([row.name for row in of]))
        for of in found.values()
    )


def _template(name: str) -> str:
    """Return a name without its numbers; of a hash nothing, which is no name."""
    return "" if _HASH.fullmatch(name) else _NUMBER.sub("*", name)


def _name(names: list[str]) -> str:
    """`layers.*.self_attn.q_proj.weight x30`: with a star for the numbers that differ; `0325419dc03b x30` of hashes."""
    if _HASH.fullmatch(names[0]):
        return f"{names[0]} x{len(names)}"
    numbers = [*zip(*map(_NUMBER.findall, names), strict=True)]
    spelled = (of[0] if len({*of}) == 1 else "*" for of in numbers)
    return f"{_NUMBER.sub(lambda _: next(spelled), names[0])} x{len(names)}"


def _shape(row: TableRow) -> Hashable:
    proof = row.proof and row.proof.kind
    return replace(row, name="", bytes_before=None, bytes_after=0, bits_per_weight=None, proof=None), proof


def _sum_of_tables(rows: list[TableRow]) -> TableRow:
    before = [row.bytes_before for row in rows if row.bytes_before is not None]
    after, bits = sum(row.bytes_after for row in rows), [row.bits_per_weight for row in rows]
    known = [b for b in bits if b is not None]
    return replace(
        rows[0],
        bytes_before=sum(before) if len(before) == len(rows) else None,
        bytes_after=after,
        bits_per_weight=sum(known) / len(known) if known else None,
        proof=weakest(row.proof for row in rows),
    )


def _kind(row: TableChange) -> Hashable:
    return row.before, row.after, (row.delta > 0) - (row.delta < 0)
