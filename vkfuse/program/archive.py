"""Zip archives as torch writes them: members stored as they are, seen in place. Imports no torch."""

import io
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Final

from vkfuse.errors import InputError, UnsafePickleError
from vkfuse.pages import passing
from vkfuse.pte.kinds import other_kind

DAMAGED: Final = "copy or export the file again"
_LOCAL_HEADER: Final = struct.Struct(
    "<4s22x2H"
)  # signature, lengths of name and extra field (APPNOTE.TXT, 4.3.7)


class Archive:
    """The members of a zip by their names inside the archive's one folder; nothing is copied or unpacked.

    `where` names it in errors. Raises InputError for no zip, a damaged or a compressed one, UnsafePickleError for members
    that two readers could tell apart differently.
    """

    def __init__(self, data: memoryview, where: str) -> None:
        self.data, self.where = data, where
        with _reported(data, where):
            entries = zipfile.ZipFile(_Window(data)).filelist
        self._entries = _by_name(entries, data.nbytes, where)

    @property
    def names(self) -> tuple[str, ...]:
        """The members' names, in the order of the directory."""
        return tuple(self._entries)

    def __contains__(self, name: str) -> bool:
        """Whether there is a member `name`."""
        return name in self._entries

    def size(self, name: str) -> int:
        """Bytes of a member."""
        return self._entries[name].file_size

    def read(self, name: str) -> memoryview:
        """The bytes of a member, in place. InputError where they are damaged or compressed."""
        entry = self._entries[name]
        where = f"{self.where}: {name}"
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
            raise InputError(f"{where} is compressed", hint="zip without compression (zip -0), as torch does")
        header = self.data[entry.header_offset : entry.header_offset + _LOCAL_HEADER.size]
        if len(header) < _LOCAL_HEADER.size:
            raise InputError(f"{where} stands outside of the file", hint=DAMAGED)
        signature, name_length, extra_length = _LOCAL_HEADER.unpack(header)
        start = entry.header_offset + _LOCAL_HEADER.size + name_length + extra_length
        found = self.data[start : start + entry.file_size]
        if signature != b"PK\3\4" or len(found) != entry.file_size or _crc(found) != entry.CRC:
            raise InputError(f"{where} cannot be read: its bytes are damaged", hint=DAMAGED)
        return found

    def stream(self) -> IO[bytes]:
        """The whole archive as a file."""
        return io.BufferedReader(_Window(self.data))


def _crc(data: memoryview) -> int:
    """CRC-32, piece by piece: nobody writes to what is mapped before all of it is checked."""
    checksum = 0
    for piece in passing(data, unwritten=True):
        checksum = zlib.crc32(piece, checksum)
    return checksum


def _by_name(entries: list[zipfile.ZipInfo], size: int, where: str) -> dict[str, zipfile.ZipInfo]:
    if min((entry.header_offset for entry in entries), default=0) > 0:
        raise InputError(
            f"{where}: truncated archive: the directory found is that of a file inside it", hint=DAMAGED
        )
    if sum(entry.compress_size for entry in entries) > size:
        raise InputError(f"{where}: the members are larger than the archive", hint=DAMAGED)
    names = [entry.filename for entry in entries]
    if len({n.split("/", 1)[0] for n in names}) > 1 or len({n.casefold() for n in names}) != len(names):
        raise UnsafePickleError(f"{where}: the archive's members are ambiguous", hint=DAMAGED)
    return {entry.filename.split("/", 1)[-1]: entry for entry in entries}


@contextmanager
def _reported(data: memoryview, where: str) -> Iterator[None]:
    """Turn what zipfile raises while it reads the directory into one error that says what the file is."""
    try:
        yield
    except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError, ValueError, struct.error) as error:
        if bytes(data[:2]) == b"PK":
            raise InputError(f"{where}: truncated archive: {error}", hint=DAMAGED) from error
        kind = other_kind(data)
        if kind is not None:
            raise InputError(f"{where}: this is {kind[0]}", hint=kind[1]) from error
        raise InputError(
            f"{where}: not a .pt2 file ({'no zip archive' if data else 'empty'})",
            hint="write it with torch.export.save(program, 'model.pt2')",
        ) from error


class _Window(io.RawIOBase):
    """A memoryview as a seekable file."""

    def __init__(self, data: memoryview) -> None:
        self._data, self._at = data, 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """The position."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move as files do. OSError before the start."""
        base = (0, self._at, self._data.nbytes)[whence]
        if base + offset < 0:
            raise OSError(22, "negative seek")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: object) -> int:
        """Copy what is left, up to the buffer's length."""
        target = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        found = self._data[self._at : self._at + target.nbytes]
        target[: found.nbytes] = found
        self._at += found.nbytes
        return found.nbytes
