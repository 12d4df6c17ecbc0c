"""Rows that are alike but for a number, as of equal layers, as one row."""

import re
from collections.abc import Callable, Hashable, Iterable
from dataclasses import replace
from typing import Final, TypeVar

from vkfuse.report.model import Proof, Report, TableChange, TableRow

_NUMBER: Final = re.compile(r"\d+")
_HASH: Final = re.compile(r"[0-9a-f]{12}")
_Row = TypeVar("_Row", TableRow, TableChange)


def condensed(report: Report) -> Report:
    """Return the report with `layers.*.mlp.gate_proj.weight x30` in the place of thirty tables, and of their changes."""
    diff = report.diff and replace(report.diff, tables=_together(report.diff.tables, _kind, _sum_of_changes))
    return replace(report, tables=_together(report.tables, _shape, _sum_of_tables), diff=diff)


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
    """Return a name without its numbers; a hash is a name of its own."""
    return name if _HASH.fullmatch(name) else _NUMBER.sub("*", name)


def _name(names: list[str]) -> str:
    """`layers.*.self_attn.q_proj.weight x30`: with a star for the numbers that differ."""
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
        proof=_worst([row.proof for row in rows if row.proof is not None]),
    )


def _worst(proofs: list[Proof]) -> Proof | None:
    return max(proofs, key=lambda proof: proof.max_abs_error or 0.0, default=None)


def _kind(row: TableChange) -> Hashable:
    return row.before, row.after, (row.delta > 0) - (row.delta < 0)


def _sum_of_changes(rows: list[TableChange]) -> TableChange:
    return replace(rows[0], delta=sum(row.delta for row in rows))
