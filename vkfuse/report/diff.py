"""A file against the one before: sizes, labels, operators, tables; the largest change first."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, Literal

from vkfuse.pte.findings import LedgerEntry
from vkfuse.pte.model import PteFile
from vkfuse.report.build import Measured
from vkfuse.report.model import CountChange, Delegation, Diff, SizeChange, TableChange, TableRow
from vkfuse.report.sizes import mebibytes

_DELEGATE: Final = re.compile(r"(\S:\S+)/\d+ ")


def diff_of(new: Measured, base: Measured) -> Diff:
    """Return what changed from `base` to `new`."""
    return Diff(
        total=_change("total", "file", base.pte.size, new.pte.size),
        ledger=tuple(_ledger(new.ledger, base.ledger)),
        operators=tuple(_operators(new.delegation, base.delegation)),
        tables=tuple(_tables(new.tables, base.tables)),
        identical=_same_bytes(new.pte, base.pte),
    )


def _same_bytes(new: PteFile, base: PteFile) -> bool:
    """Whether two files hold the same bytes."""
    return new.size == base.size and new.data == base.data


def _change(label: str, kind: str, before: int | None, after: int | None) -> SizeChange:
    """Return a change of size; the percentage is of before."""
    delta = (after or 0) - (before or 0)
    percent = 100 * delta / before if before else None
    return SizeChange(label=label, kind=kind, before=before, after=after, delta=delta, percent=percent)


def _ledger(new: Iterable[LedgerEntry], base: Iterable[LedgerEntry]) -> list[SizeChange]:
    """Return the labels whose bytes differ; delegates count together, since their numbers shift."""
    after, before = _totals(new), _totals(base)
    changes = [
        _change(label, kind, before.get((kind, label)), after.get((kind, label)))
        for kind, label in {**after, **before}
    ]
    differing = [change for change in changes if change.before != change.after]
    return sorted(differing, key=lambda change: (-abs(change.delta), change.label))


def _totals(entries: Iterable[LedgerEntry]) -> dict[tuple[str, str], int]:
    """Return bytes by kind and label, `vulkan:forward/2 graph` under `vulkan:forward graph`."""
    totals: Counter[tuple[str, str]] = Counter()
    for entry in entries:
        totals[entry.kind, _DELEGATE.sub(r"\1 ", entry.label)] += entry.bytes
    return totals


def _operators(new: Delegation, base: Delegation) -> list[CountChange]:
    """Operators whose number of calls differs, on Vulkan and on the CPU."""
    cpu = ({name: op.count for name, op in side.cpu.items()} for side in (new, base))
    changes = (*_counts("vulkan", new.vulkan, base.vulkan), *_counts("cpu", *cpu))
    return sorted(changes, key=lambda c: (-abs(c.after - c.before), c.place, c.operator))


def _counts(
    place: Literal["vulkan", "cpu"], new: Mapping[str, int], base: Mapping[str, int]
) -> Iterator[CountChange]:
    """Yield the operators of one place whose counts differ."""
    for name in {**new, **base}:
        before, after = base.get(name, 0), new.get(name, 0)
        if before != after:
            yield CountChange(operator=name, place=place, before=before, after=after)


def _tables(new: Iterable[TableRow], base: Iterable[TableRow]) -> list[TableChange]:
    """Tables that only one file has, or that are stored or read otherwise."""
    after, before = ({row.name: row for row in side} for side in (new, base))
    changes = [
        TableChange(
            name=name,
            before=_described(before.get(name)),
            after=_described(after.get(name)),
            delta=_bytes(after.get(name)) - _bytes(before.get(name)),
        )
        for name in {**after, **before}
    ]
    differing = [change for change in changes if change.before != change.after]
    return sorted(differing, key=lambda change: (-abs(change.delta), change.name))


def _bytes(row: TableRow | None) -> int:
    """Bytes of a table that may not be there."""
    return row.bytes_after if row is not None else 0


def _described(row: TableRow | None) -> str:
    """`q4 [64, 64] 4-bit/32, gather, 0.002 MiB`: a table in words, empty where it is not there."""
    if row is None:
        return ""
    group = f"/{row.group_size}" if row.group_size else ""
    consumers = "+".join(row.consumers)
    return f"{row.rung} {list(row.shape)} {row.bits}-bit{group}, {consumers}, {mebibytes(row.bytes_after)}"
