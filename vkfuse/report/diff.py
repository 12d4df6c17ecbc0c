"""A file against the one before: sizes, labels, operators, tables, contents byte by byte; the largest change first."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Final, Literal

from vkfuse.lint.findings import EFFECTS
from vkfuse.measure.layouts import layouts
from vkfuse.measure.ledger import parts
from vkfuse.measure.memory import MEMORY
from vkfuse.measure.names import table_names
from vkfuse.measure.tables import TableRead, table_reads_by
from vkfuse.pages import digest, passing
from vkfuse.pte.model import PteFile
from vkfuse.quantities import mebibytes
from vkfuse.report.build import Measured, packet_of
from vkfuse.report.file_tables import rows_of
from vkfuse.report.model import (
    ContentChange,
    CountChange,
    Delegation,
    Diff,
    FindingChange,
    LayoutChange,
    Loadable,
    SizeChange,
    TableChange,
    TableRow,
)


def diff_of(new: Measured, base: Measured) -> Diff:
    """Return what changed from `base` to `new`."""
    identical, ledger = new.pte.data == base.pte.data, tuple(_ledger(new.pte, base.pte))
    return Diff(
        total=SizeChange.of("total", "file", base.pte.size, new.pte.size),
        ledger=ledger,
        operators=tuple(_operators(new.delegation, base.delegation)),
        tables=tuple(_tables(new, base)),
        identical=identical,
        contents=() if identical else _contents(new, base, ledger),
        memory=tuple(_memory(new, base)),
        layouts=tuple(_layouts(new.pte, base.pte)),
        findings=tuple(_findings(new.loadable, base.loadable)),
    )


def _memory(new: Measured, base: Measured) -> Iterator[SizeChange]:
    """Yield the file and what it takes once it is loaded, over all methods."""
    yield SizeChange.of("file", "file", base.pte.size, new.pte.size)
    for label, kind, part in MEMORY:
        before, after = (sum(map(part, side.memory)) for side in (base, new))
        yield SizeChange.of(label, kind, before, after)


def _layouts(new: PteFile, base: PteFile) -> list[LayoutChange]:
    """Operators of both files that work on other types, storages or packings, pair by pair in the order of spelling."""
    after, before = layouts(new), layouts(base)
    changes = [
        LayoutChange(place=place, operator=operator, before=was, after=now, calls=min(lost, gained))
        for place, operator in after.keys() & before.keys()
        for (was, lost), (now, gained) in zip(
            sorted((before[place, operator] - after[place, operator]).items()),
            sorted((after[place, operator] - before[place, operator]).items()),
            strict=False,
        )
    ]
    return sorted(changes, key=lambda c: (-c.calls, c.place, c.operator, c.before))


def _findings(new: Loadable, base: Loadable) -> list[FindingChange]:
    """Reasons that one file has at more places than the other, failures first."""
    after, before = (Counter((f.effect, f.name, f.code) for f in side.findings) for side in (new, base))
    changes = [
        FindingChange(effect=effect, name=name, code=code, before=before[key], after=after[key])
        for key in {**after, **before}
        for effect, name, code in [key]
        if before[key] != after[key]
    ]
    return sorted(changes, key=lambda c: (EFFECTS.index(c.effect), c.code, c.name))


def _contents(new: Measured, base: Measured, sizes: tuple[SizeChange, ...]) -> tuple[ContentChange, ...]:
    """Return the labels of other content; where no label is another, the order is."""
    changes = content_changes(new.pte, base.pte)
    return changes if changes or sizes else (order_change(new.pte.data, base.pte.data),)


def _ledger(new: PteFile, base: PteFile) -> list[SizeChange]:
    """Return the labels whose bytes differ; delegates count together, since their numbers shift."""
    after, before = _totals(new), _totals(base)
    changes = [
        SizeChange.of(label, kind, before.get((kind, label)), after.get((kind, label)))
        for kind, label in {**after, **before}
    ]
    differing = [change for change in changes if change.before != change.after]
    return sorted(differing, key=lambda change: (-abs(change.delta), change.label))


def _totals(pte: PteFile) -> dict[tuple[str, str], int]:
    """Return bytes by kind and label, `vulkan:forward/2 graph` under `vulkan:forward graph`."""
    totals: Counter[tuple[str, str]] = Counter()
    for part in parts(pte):
        totals[part.kind, part.label.merged] += part.at.size
    return totals


def _operators(new: Delegation, base: Delegation) -> list[CountChange]:
    """Operators whose number of calls differs, on Vulkan and on the CPU."""
    now, was = ({name: op.count for name, op in side.cpu.items()} for side in (new, base))
    on_vulkan, on_cpu = _by_packet(new.vulkan, base.vulkan), _by_packet(now, was)
    moved = {packet for packet, more in on_vulkan.items() if more * on_cpu.get(packet, 0) < 0}
    changes = (*_counts("vulkan", new.vulkan, base.vulkan, moved), *_counts("cpu", now, was, moved))
    return sorted(changes, key=lambda c: (-abs(c.after - c.before), c.place, c.operator))


def _by_packet(new: Mapping[str, int], base: Mapping[str, int]) -> Mapping[str, int]:
    """Return how many calls more there are by name, whatever the overload; the runtime's own primitives have none."""
    more = Counter[str]()
    for counts, sign in ((new, 1), (base, -1)):
        for name, calls in counts.items():
            more[packet_of(name)] += sign * calls
    more.pop("", None)
    return more


def _counts(
    place: Literal["vulkan", "cpu"],
    new: Mapping[str, int],
    base: Mapping[str, int],
    moved: AbstractSet[str],
) -> Iterator[CountChange]:
    """Yield the operators of one place whose counts differ."""
    for name in {**new, **base}:
        before, after = base.get(name, 0), new.get(name, 0)
        if before != after:
            what = "moved" if packet_of(name) in moved else _what(before, after)
            yield CountChange(operator=name, place=place, before=before, after=after, what=what)


def _what(before: int, after: int) -> Literal["appeared", "vanished", "more", "fewer"]:
    """Return what became of an operator in one place."""
    if before and after:
        return "more" if after > before else "fewer"
    return "appeared" if after else "vanished"


def _tables(new: Measured, base: Measured) -> list[TableChange]:
    """Tables that only one file has, that are stored or read otherwise, or that hold other bytes.

    A name that one file records is that of equal bytes in the other.
    """
    names = {**table_names(base.pte), **table_names(new.pte)}
    reads = [table_reads_by(side.pte, names) for side in (new, base)]
    after, before = ({row.name: row for row in rows_of(of)} for of in reads)
    same = {name for name, row in after.items() if _described(row) == _described(before.get(name))}
    ours, theirs = (_table_hashes(of, same) for of in reads)
    changes = [
        TableChange(
            name=name,
            before=_described(before.get(name)),
            after=_described(after.get(name), other=ours.get(name) != theirs.get(name)),
            delta=_bytes(after.get(name)) - _bytes(before.get(name)),
        )
        for name in {**after, **before}
    ]
    differing = [change for change in changes if change.before != change.after]
    return sorted(differing, key=lambda change: (-abs(change.delta), change.name))


def _table_hashes(reads: Iterable[TableRead], names: AbstractSet[str]) -> dict[str, tuple[bytes, ...]]:
    """Hashes of the constants of tables by name, in the order of their use."""
    found: dict[str, tuple[bytes, ...]] = {}
    known: dict[str, bytes] = {}
    for read in reads:
        if read.weight.shown not in names:
            continue
        for constant in read.constants:
            if constant.name not in known:
                known[constant.name] = digest(constant.data or memoryview(b""))
        hashes = (known[constant.name] for constant in read.constants)
        found[read.weight.shown] = (*found.get(read.weight.shown, ()), *hashes)
    return found


def _bytes(row: TableRow | None) -> int:
    """Bytes of a table that may not be there."""
    return row.bytes_after if row is not None else 0


def _described(row: TableRow | None, *, other: bool = False) -> str:
    """`q4 [64, 64] 4-bit/32, gather, 0.002 MiB`: a table in words, empty where it is not there."""
    if row is None:
        return ""
    group = f"/{row.group_size}" if row.group_size else ""
    consumers = "+".join(row.consumers)
    content = ", other content" if other else ""
    size = mebibytes(row.bytes_after)
    return f"{row.rung} {list(row.shape)} {row.bits}-bit{group}, {consumers}, {size}{content}"


ORDER: Final = "order of the parts"

Views = list[memoryview]


def content_changes(new: PteFile, base: PteFile) -> tuple[ContentChange, ...]:
    """Return the labels that hold as many bytes in both files, and others; the most bytes first."""
    after, before = _by_label(new), _by_label(base)
    changes = [
        _change(label, kind, views, before[kind, label])
        for (kind, label), views in after.items()
        if _size(views) == _size(before.get((kind, label), []))
    ]
    return tuple(sorted((c for c in changes if c.changed), key=lambda c: (-c.differing, c.label)))


def order_change(new: memoryview, base: memoryview) -> ContentChange:
    """Return the change of two files of the same parts that do not lie in the same order."""
    return _change(ORDER, "program", [new], [base])


def _by_label(pte: PteFile) -> Mapping[tuple[str, str], Views]:
    """Return the bytes of each label, part by part in the order of use."""
    found: dict[tuple[str, str], Views] = {}
    for part in sorted(parts(pte), key=lambda part: (part.order, part.at.offset)):
        views = found.setdefault((part.kind, part.label.merged), [])
        views.append(pte.data[part.at.offset : part.at.end])
    return found


def _size(views: Views) -> int:
    return sum(map(len, views))


def _change(label: str, kind: str, new: Views, base: Views) -> ContentChange:
    """Compare part by part, or as a whole where the parts are of other sizes."""
    if [*map(len, new)] != [*map(len, base)]:
        new, base = [memoryview(b"".join(new))], [memoryview(b"".join(base))]
    differing = [sum(_differing(ours, theirs)) for ours, theirs in zip(new, base, strict=True)]
    return ContentChange(
        label=label,
        kind=kind,
        bytes=_size(new),
        parts=len(new),
        changed=sum(count > 0 for count in differing),
        differing=sum(differing),
    )


def _differing(new: memoryview, base: memoryview) -> Iterator[int]:
    """Yield how many bytes differ, chunk by chunk of two views of the same size."""
    for ours, theirs in zip(passing(new), passing(base), strict=True):
        if ours != theirs:
            either = int.from_bytes(ours, "little") ^ int.from_bytes(theirs, "little")
            yield len(ours) - either.to_bytes(len(ours), "little").count(0)
