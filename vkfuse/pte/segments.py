"""Extents of a mapped file, only through checked helpers; where the bytes of tensors and delegates stand.

Source: getTensorDataPtr in runtime/executor/tensor_parser_exec_aten.cpp of ExecuTorch 1.5.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from vkfuse.errors import FormatError
from vkfuse.pte.flatbuffer import FlatTable
from vkfuse.pte.model import SubsegmentOffsets
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Blobs:
    """The segments and inline blobs of one file."""

    data: memoryview
    segments: tuple[Extent, ...]
    constant_segment: SubsegmentOffsets | None
    mutable_segments: tuple[SubsegmentOffsets, ...]
    inline_constants: tuple[Bytes, ...]
    inline_delegates: tuple[Bytes, ...]
    external: Mapping[str, memoryview]

    def constant(self, tensor: FlatTable, index: int, nbytes: int) -> Bytes:
        """Return the bytes of constant `index`."""
        if self.constant_segment and self.constant_segment.offsets:
            return self._subsegment(tensor, self.constant_segment, index, nbytes)
        if index >= len(self.inline_constants):
            raise tensor.error(f"constant {index} of {len(self.inline_constants)}", "data_buffer_idx")
        blob = self.inline_constants[index]
        data = cut(blob.data, Extent(0, nbytes), tensor.path("data_buffer_idx"))
        return Bytes(data, Extent(blob.at.offset, nbytes))

    def initial_state(self, tensor: FlatTable, segment: int, index: int, nbytes: int) -> Bytes:
        """Return the bytes that a planned tensor starts with."""
        if segment >= len(self.mutable_segments):
            raise tensor.error(
                f"mutable segment {segment} of {len(self.mutable_segments)}", "data_buffer_idx"
            )
        return self._subsegment(tensor, self.mutable_segments[segment], index, nbytes)

    def _subsegment(
        self, tensor: FlatTable, subsegments: SubsegmentOffsets, index: int, nbytes: int
    ) -> Bytes:
        """Return `nbytes` at offset `index` of a segment."""
        where = tensor.path("data_buffer_idx")
        if index >= len(subsegments.offsets):
            raise tensor.error(f"offset {index} of {len(subsegments.offsets)}", "data_buffer_idx")
        if subsegments.segment_index >= len(self.segments):
            raise tensor.error(
                f"segment {subsegments.segment_index} of {len(self.segments)}", "data_buffer_idx"
            )
        segment = self.segments[subsegments.segment_index]
        extent = Extent(subsegments.offsets[index], nbytes)
        data = cut(cut(self.data, segment, where), extent, where)
        return Bytes(data, extent.within(segment))
