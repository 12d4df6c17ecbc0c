"""Where the bytes of tensors and delegates stand, and how they are found.

Source: getTensorDataPtr in runtime/executor/tensor_parser_exec_aten.cpp of ExecuTorch 1.5.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from vkfuse.pte.flatbuffer import FlatTable
from vkfuse.pte.model import SubsegmentOffsets
from vkfuse.pte.segments import Bytes, cut
from vkfuse.pte.values import Extent


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
