"""Extents of a mapped file, only through checked helpers."""

from dataclasses import dataclass

from vkfuse.errors import FormatError
from vkfuse.pte.flatbuffer import FlatTable
from vkfuse.pte.values import Extent


@dataclass(frozen=True, slots=True)
class Bytes:
    """Bytes of the file and where they stand."""

    data: memoryview
    at: Extent


def cut(data: memoryview, extent: Extent, where: str) -> memoryview:
    """Return a view of the extent; FormatError when it leaves the data."""
    if extent.end > len(data):
        raise FormatError(
            f"bytes {extent.offset}..{extent.end} of {len(data)}",
            field=where,
            hint="the file is truncated, or damaged: write or copy it again",
        )
    return data[extent.offset : extent.end]


def read_segments(root: FlatTable, data: memoryview, base: int) -> tuple[Extent, ...]:
    """Read `segments` (relative to `base`) as absolute extents, each inside the file."""
    extents = []
    for segment in root.children("segments"):
        extent = Extent(base + segment.integer("offset"), segment.integer("size"))
        cut(data, extent, segment.path())
        extents.append(extent)
    return tuple(extents)


def segment_of(table: FlatTable, segments: tuple[Extent, ...], name: str = "segment_index") -> Extent:
    """Return the segment that an index field names."""
    index: int = table.integer(name)
    if index >= len(segments):
        raise table.error(f"segment {index} of {len(segments)}", name)
    return segments[index]
