"""A .pte file written from a `PteFile`: header, program flatbuffer, segments.

What a file holds is changed with `dataclasses.replace`: methods, their values, instructions and delegates, named data. A
tensor's `data`, a delegate's `processed` and an entry's `data` are what is written, whatever their indices and extents say.
Source: serialize_pte_binary in exir/_serialize/_program.py of ExecuTorch 1.5.
"""

from typing import IO, Final

from vkfuse.errors import FormatError
from vkfuse.multiples import round_up
from vkfuse.pages import passing
from vkfuse.pte.builder import build
from vkfuse.pte.contents import ALIGNMENT, Contents
from vkfuse.pte.enums import DataLocation
from vkfuse.pte.layout import INSTRUCTIONS, KERNEL_TYPES, PROGRAM
from vkfuse.pte.model import Delegate, PteFile
from vkfuse.pte.nodes import method_node
from vkfuse.pte.reader import HEADER, HEADER_AT
from vkfuse.pte.records import Node

_MEMBERS: Final = {"val": KERNEL_TYPES, "instr_args": INSTRUCTIONS}
_NEWER: Final = "the file was written by a newer ExecuTorch: use a newer vkfuse"


def write_pte(file: PteFile, stream: IO[bytes], *, as_lowered: bool = False) -> int:
    """Write the file and return its bytes; what is mapped is copied chunk by chunk and not kept in memory.

    Segments are aligned as they were in the input and equal strings are one, unless it is to be `as_lowered`: as
    ExecuTorch's defaults have it.

    FormatError where the input has fields that the schema does not know, or segments that overlap.
    """
    if file.unread:
        raise FormatError(
            "a field of a newer schema, which would be lost", field=file.unread, path=file.path, hint=_NEWER
        )
    contents = Contents(file, ALIGNMENT if as_lowered else None)
    program = _with_header(_program(file, contents, shared=not as_lowered), contents)
    base = round_up(len(program), contents.alignment) if contents.size else len(program)
    stream.write(program)
    at = len(program)
    for piece in contents.pieces:
        stream.write(bytes(base + piece.at - at))
        for chunk in passing(piece.data):
            stream.write(chunk)
        at = base + piece.at + len(piece.data)
    return at


def _with_header(program: bytes, contents: Contents) -> bytes:
    """Insert the extended header, which a file whose segments are empty does not have.

    It is 32 bytes, so that what stands behind it stays aligned to as much.
    """
    if not contents.size:
        return program
    root, size = int.from_bytes(program[:4], "little"), len(program) + HEADER.size
    base = round_up(size, contents.alignment)
    header = HEADER.pack(b"eh00", HEADER.size, size, base, contents.size)
    return (root + HEADER.size).to_bytes(4, "little") + program[4:HEADER_AT] + header + program[HEADER_AT:]


def _program(file: PteFile, contents: Contents, *, shared: bool) -> bytes:
    inline: list[Node] = []

    def placed(delegate: Delegate) -> tuple[DataLocation, int]:
        location, index = contents.location(delegate)
        if location is DataLocation.INLINE:
            inline.append(Node("BackendDelegateInlineData", {"data": b""}))
            index = len(inline) - 1
        return location, index

    root = Node(
        "Program",
        {
            "version": file.version,
            "execution_plan": [method_node(method, contents.number, placed) for method in file.methods],
            "constant_buffer": (),
            "backend_delegate_data": inline,
            "segments": [Node.of(segment, "DataSegment") for segment in contents.segments],
            "constant_segment": Node.of(contents.constants) if contents.constants else None,
            "mutable_data_segments": [*map(Node.of, contents.initial_states)] or None,
            "named_data": [
                Node("NamedData", {"key": entry.key, "segment_index": contents.segment(entry.data)})
                for entry in file.named
            ]
            or None,
        },
    )
    return build(root, PROGRAM, _MEMBERS, b"ET12", shared=shared)
