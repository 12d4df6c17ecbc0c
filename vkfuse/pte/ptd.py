"""A .ptd file: external named data.

Source: extension/flat_tensor/serialize/flat_tensor_header.cpp of ExecuTorch 1.5.
"""

from collections.abc import Mapping
from pathlib import Path
from struct import Struct
from types import MappingProxyType
from typing import Final

from vkfuse.errors import FormatError, naming
from vkfuse.mapping import map_file
from vkfuse.pte.flatbuffer import Budget, Source
from vkfuse.pte.kinds import other_kind
from vkfuse.pte.layout import FLAT_TENSOR
from vkfuse.pte.segments import cut, read_segments, segment_of
from vkfuse.pte.values import Extent

_HEADER: Final = Struct("<4sIQQQQ")  # magic, length, flatbuffer offset and size, segment base and size
_HEADER_AT: Final = 8  # between the root offset and the tables, whose offsets count from the file's start


def read_ptd(path: Path | str) -> Mapping[str, memoryview]:
    """Map a .ptd and return its blobs by key. InputError, FormatError."""
    with naming(str(path)):
        return parse_ptd(map_file(path))


def parse_ptd(data: memoryview | bytes) -> Mapping[str, memoryview]:
    """Read a .ptd from memory. FormatError."""
    data = memoryview(data).toreadonly()
    kind = other_kind(data)
    if kind is not None and bytes(data[4:8]) != b"FT01":
        raise FormatError(f"this is {kind[0]}", hint=kind[1])
    if len(data) < _HEADER_AT + _HEADER.size:
        raise FormatError(f"{len(data)} bytes are no .ptd", field="header")
    magic, length, offset, size, base, segments_size = _HEADER.unpack_from(data, _HEADER_AT)
    if magic != b"FH01" or length < _HEADER.size:
        raise FormatError("not a .ptd header", field="header")
    cut(data, Extent(base, segments_size), "header.segment_data_size")
    flatbuffer = cut(data, Extent(0, offset + size), "header.flatbuffer_size")
    source = Source(flatbuffer, FLAT_TENSOR, Budget.of_size(len(data)))
    root = source.root("FlatTensor", b"FT01")
    segments = read_segments(root, data, base)
    return MappingProxyType(
        {
            entry.name("key"): cut(data, segment_of(entry, segments), entry.path())
            for entry in root.children("named_data")
        }
    )
