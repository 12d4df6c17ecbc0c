"""What stands in the segments of a file to be written, in ExecuTorch's order, and where.

Constants, initial states, delegates, named data; what nothing refers to is left out. What is one place in memory is
written once. Source: serialize_pte_binary in exir/_serialize/_program.py of ExecuTorch 1.5.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from vkfuse.errors import FormatError
from vkfuse.multiples import round_up
from vkfuse.pages import address, digest
from vkfuse.pte.enums import DataLocation
from vkfuse.pte.model import Delegate, PteFile, SubsegmentOffsets, Tensor
from vkfuse.pte.values import Extent

ALIGNMENT: Final = 128  # the default of serialize_pte_binary
_ALIGNMENT: Final = 16  # of a constant, and the least of a segment
_LARGEST: Final = 4096  # alignment that is kept of an input; offsets may have a larger one by chance
_BY_CHANCE: Final = 3  # segments, which may have a larger alignment in common without being meant to
_BEGINNING: Final = 1 << 12  # bytes
_Key = tuple[object, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Bytes, and where they start from where segments start."""

    at: int
    data: memoryview


class Contents:
    """The segments of a file, and how its tensors, delegates and names find their bytes there.

    Segments are aligned to `alignment`, by default each as it was in the input.
    `segments` count from the first one's start; between the `pieces` stand zeros. FormatError where the input's segments
    overlap, which would multiply their bytes.
    """

    def __init__(self, file: PteFile, alignment: int | None = None) -> None:
        self.segments: list[Extent] = []
        self.pieces: list[Piece] = []
        self._file = file
        self._start = address(file.data)
        self._kept = alignment is None
        self.alignment = alignment or self._meant(_common(self._offsets_of_segments(), ALIGNMENT))
        self._numbers: dict[_Key, int] = {}
        tensors = [value for method in file.methods for value in method.values if isinstance(value, Tensor)]
        stored = [tensor for tensor in tensors if _stored(tensor)]
        self.constants = self._constants([tensor for tensor in stored if tensor.allocation is None])
        self.initial_states = tuple(self._initial_states([tensor for tensor in stored if tensor.allocation]))
        self._delegates = self._shared(
            delegate.processed
            for method in file.methods
            for delegate in method.delegates
            if not _inline(delegate)
        )
        self._named = self._shared(entry.data for entry in file.named)
        self._check_size()

    @property
    def size(self) -> int:
        """Bytes of all segments and of what is between them."""
        return max((segment.end for segment in self.segments), default=0)

    def number(self, tensor: Tensor) -> int:
        """Return the `data_buffer_idx` of a tensor."""
        return self._numbers[_key(tensor)] if _stored(tensor) else tensor.data_buffer_idx

    def location(self, delegate: Delegate) -> tuple[DataLocation, int]:
        """Return where a delegate's blob is; the index of an inline one, which is empty, is not told."""
        if _inline(delegate):
            return DataLocation.INLINE, 0
        return DataLocation.SEGMENT, self._delegates[_place(delegate.processed)]

    def segment(self, named: memoryview) -> int:
        """Return the segment of a named blob."""
        return self._named[_place(named)]

    def _meant(self, alignment: int) -> int:
        """Return the alignment that all segments have, the default where so few may have another by chance."""
        few = len(self._file.segments) <= _BY_CHANCE and alignment < _LARGEST
        return ALIGNMENT if few else alignment

    def _offsets_of_segments(self) -> list[int]:
        """Where segments of the input start, from the first, and the first in the file."""
        base = self._file.header.segment_base if self._file.header else 0
        return [base, *(segment.offset - base for segment in self._file.segments)]

    def _constants(self, tensors: list[Tensor]) -> SubsegmentOffsets | None:
        """Lay out the constants; None where the file has none and no place for them."""
        was = self._file.constant_segment
        if was is None and not tensors:
            return None
        kept = was.offsets if was and self._kept else ()
        return self._tensors(tensors, _common(kept, _ALIGNMENT))

    def _initial_states(self, tensors: list[Tensor]) -> Iterator[SubsegmentOffsets]:
        """Lay out the initial states of planned tensors, packed."""
        count = max((tensor.initial_segment + 1 for tensor in tensors), default=0)
        for index in range(count):
            yield self._tensors([tensor for tensor in tensors if tensor.initial_segment == index], 1)

    def _tensors(self, tensors: list[Tensor], alignment: int) -> SubsegmentOffsets:
        """Lay out a segment of tensors, in the order of the input's indices; entry 0 is the placeholder."""
        datas: dict[_Key, memoryview] = {}
        for tensor in sorted(tensors, key=lambda tensor: tensor.data_buffer_idx):
            data, known = _bytes(tensor), datas.get(_key(tensor))
            if known is None or len(known) < len(data):
                datas[_key(tensor)] = data
        self._numbers |= {key: number for number, key in enumerate(datas, start=1)}
        offsets, size = [0], 0
        for data in datas.values():
            offsets.append(round_up(size, alignment))
            size = offsets[-1] + len(data)
        start = round_up(self.size, self.alignment)
        self.segments.append(Extent(start, size))
        self.pieces += [
            Piece(at=start + offset, data=data)
            for offset, data in zip(offsets[1:], datas.values(), strict=True)
        ]
        return SubsegmentOffsets(segment_index=len(self.segments) - 1, offsets=tuple(offsets))

    def _shared(self, blobs: Iterable[memoryview]) -> dict[_Key, int]:
        """Lay out a segment for each blob, equal new ones once; return their indices by place in memory."""
        distinct = {_place(blob): blob for blob in blobs}
        new = {place: blob for place, blob in distinct.items() if not self._in_input(blob)}
        alike = Counter(map(_beginning, new.values()))
        by_place: dict[_Key, int] = {}
        by_content: dict[_Key, int] = {}
        for place, blob in distinct.items():
            content: _Key = (place,)
            if place in new and alike[_beginning(blob)] > 1:
                content = (digest(blob),)
            by_place[place] = by_content.setdefault(content, len(self.segments))
            if by_place[place] == len(self.segments):
                self._add(blob)
        return by_place

    def _add(self, blob: memoryview) -> None:
        """Append a segment, aligned as it was in the input, or a new one as the input's are."""
        alignment = self.alignment
        at = Extent(address(blob) - self._start, len(blob))
        if self._kept and at in self._file.segments:
            base = self._offsets_of_segments()[0]
            alignment = _common((at.offset - base,), alignment)
        start = round_up(self.size, alignment)
        self.segments.append(Extent(start, len(blob)))
        self.pieces.append(Piece(at=start, data=blob))

    def _in_input(self, data: memoryview) -> bool:
        """Whether bytes are a view of the input."""
        return bool(len(data)) and 0 <= address(data) - self._start < len(self._file.data)

    def _check_size(self) -> None:
        """FormatError where more of the input would be written than it has."""
        carried = sum(len(piece.data) for piece in self.pieces if self._in_input(piece.data))
        if carried > 2 * len(self._file.data):
            raise FormatError("they overlap and would be written many times over", field="segments")


def _stored(tensor: Tensor) -> bool:
    """Whether the file holds bytes of the tensor."""
    return tensor.data is not None and not tensor.external


def _bytes(tensor: Tensor) -> memoryview:
    return memoryview(b"") if tensor.data is None else tensor.data


def _key(tensor: Tensor) -> _Key:
    """What two tensors with one place in the file have in common."""
    data = _bytes(tensor)
    where = (address(data),) if len(data) else ("empty", tensor.data_buffer_idx)
    return (tensor.allocation is not None, tensor.initial_segment, *where)


def _inline(delegate: Delegate) -> bool:
    """Whether a delegate's blob is empty and no segment, which ExecuTorch leaves in the flatbuffer."""
    return not len(delegate.processed) and delegate.location is DataLocation.INLINE


def _beginning(blob: memoryview) -> _Key:
    """What blobs must have in common to be equal, which is had without reading them."""
    return len(blob), bytes(blob[:_BEGINNING])


def _place(blob: memoryview) -> _Key:
    return address(blob), len(blob)


def _common(offsets: Iterable[int], default: int) -> int:
    """Return the power of two, from 16 to 4096, that divides all offsets; the default where all are 0."""
    divisor = math.gcd(*offsets)
    return max(_ALIGNMENT, min(_LARGEST, divisor & -divisor)) if divisor else default
