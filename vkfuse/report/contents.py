"""What differs between two files in labels of the same size: bytes against bytes, in the order of their use."""

from collections.abc import Iterator, Mapping
from typing import Final

from vkfuse.measure.ledger import parts
from vkfuse.pages import passing
from vkfuse.pte.model import PteFile
from vkfuse.report.model import ContentChange

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
