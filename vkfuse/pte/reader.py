"""A .pte file: header, program flatbuffer, segments. Any bytes give a `PteFile` or a FormatError.

Source: schema/extended_header.h and runtime/executor/program.cpp of ExecuTorch 1.5.
"""

from collections.abc import Mapping
from pathlib import Path
from struct import Struct
from types import MappingProxyType
from typing import Final

from vkfuse.errors import FormatError, naming
from vkfuse.mapping import leading, map_file
from vkfuse.pte.flatbuffer import Budget, FlatTable, Source
from vkfuse.pte.kinds import other_kind
from vkfuse.pte.layout import PROGRAM
from vkfuse.pte.model import Header, Method, NamedData, PteFile, SubsegmentOffsets
from vkfuse.pte.program import read_method
from vkfuse.pte.segments import Blobs, Bytes, cut, read_segments, segment_of
from vkfuse.pte.values import Extent

# Magic, length, program size, segment base, segment data size, which the oldest lack.
HEADER: Final = Struct("<4sIQQQ")
_SHORT: Final = Struct("<4sIQQ")
HEADER_AT: Final = 8
_NOTHING: Final[Mapping[str, memoryview]] = MappingProxyType({})


def read_pte(path: Path | str, *, external: Mapping[str, memoryview] = _NOTHING) -> PteFile:
    """Map and read a .pte (`-` for stdin); `external` holds its .ptd blobs. InputError, FormatError."""
    name = "stdin" if str(path) == "-" else str(path)
    with naming(name):
        return parse_pte(map_file(path), path=name, external=external)


def given_as_pte(path: Path | str) -> bool:
    """Whether a file, stdin for `-`, begins as a .pte of any version, or is called one and is no archive. InputError."""
    head = leading(path, 8)
    return head[4:6] == b"ET" or (Path(path).suffix == ".pte" and head[:2] != b"PK")


def parse_pte(
    data: memoryview | bytes, *, path: str = "", external: Mapping[str, memoryview] = _NOTHING
) -> PteFile:
    """Read a .pte from memory. FormatError."""
    data = memoryview(data).toreadonly()
    if (other := other_kind(data)) is not None:
        raise FormatError(f"this is {other[0]}", hint=other[1])
    header = _header(data)
    program_at = Extent(0, header.program_size if header else len(data))
    flatbuffer = cut(data, program_at, "header.program_size")
    source = Source(flatbuffer, PROGRAM, Budget.of_size(len(data)))
    root = source.root("Program", b"ET12")
    blobs = _blobs(root, data, header, external)
    methods, named = _methods(root, blobs), _named(root, blobs)
    return PteFile(
        path=path,
        data=data,
        header=header,
        version=root.integer("version"),
        methods=methods,
        program_at=program_at,
        segments=blobs.segments,
        constant_segment=blobs.constant_segment,
        mutable_segments=blobs.mutable_segments,
        named=named,
        inline_delegates=tuple(blob.at for blob in blobs.inline_delegates),
        inline_constants=tuple(blob.at for blob in blobs.inline_constants),
        external=external,
        unread=source.unread,
    )


def _methods(root: FlatTable, blobs: Blobs) -> tuple[Method, ...]:
    """Read the methods; FormatError where two have one name."""
    methods: dict[str, Method] = {}
    for plan in root.children("execution_plan"):
        method = read_method(plan, blobs)
        if method.name in methods:
            raise plan.error(f"second method {method.name!r}", "name")
        methods[method.name] = method
    return tuple(methods.values())


def _header(data: memoryview) -> Header | None:
    """Return the extended header, None where the file has none."""
    if len(data) < HEADER_AT + _SHORT.size:
        return None
    magic, length, program_size, segment_base = _SHORT.unpack_from(data, HEADER_AT)
    if magic != b"eh00":
        return None
    if length < _SHORT.size or HEADER_AT + length > len(data):
        raise FormatError(f"length {length}", field="header.length")
    segment_data_size = HEADER.unpack_from(data, HEADER_AT)[-1] if length >= HEADER.size else 0
    cut(data, Extent(segment_base, segment_data_size), "header.segment_data_size")
    return Header(
        length=length,
        program_size=program_size,
        segment_base=segment_base,
        segment_data_size=segment_data_size,
    )


def _blobs(
    root: FlatTable, data: memoryview, header: Header | None, external: Mapping[str, memoryview]
) -> Blobs:
    """Return everything that tensors and delegates may point into."""
    segments = read_segments(root, data, header.segment_base if header else 0)
    constants = root.child("constant_segment")
    return Blobs(
        data=data,
        segments=segments,
        constant_segment=_subsegments(constants, segments) if constants else None,
        mutable_segments=tuple(
            _subsegments(entry, segments) for entry in root.children("mutable_data_segments")
        ),
        inline_constants=_inline(root, "constant_buffer", "storage"),
        inline_delegates=_inline(root, "backend_delegate_data", "data"),
        external=external,
    )


def _subsegments(table: FlatTable, segments: tuple[Extent, ...]) -> SubsegmentOffsets:
    """Return the offsets; those of a segment that does not exist must all be the placeholder."""
    offsets = table.integers("offsets")
    if len(offsets) > 1:
        segment_of(table, segments)
    return SubsegmentOffsets(segment_index=table.integer("segment_index"), offsets=offsets)


def _inline(root: FlatTable, name: str, data_name: str) -> tuple[Bytes, ...]:
    """Return blobs that stand inside the flatbuffer, which starts at offset 0 of the file."""
    blobs = (entry.blob(data_name) for entry in root.children(name))
    return tuple(Bytes(data, Extent(offset, len(data))) for offset, data in blobs)


def _named(root: FlatTable, blobs: Blobs) -> tuple[NamedData, ...]:
    """Return the named data in file order; FormatError where a key stands twice."""
    entries: dict[str, NamedData] = {}
    for table in root.children("named_data"):
        key, extent = table.name("key"), segment_of(table, blobs.segments)
        if key in entries:
            raise table.error(f"second entry of {key!r}", "key")
        entries[key] = NamedData(
            key=key,
            segment_index=table.integer("segment_index"),
            data=cut(blobs.data, extent, table.path()),
            data_at=extent,
        )
    return tuple(entries.values())
