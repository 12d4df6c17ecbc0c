"""Files into memory without copying."""

import io
import mmap
import os
import stat
import sys
from pathlib import Path
from typing import IO, Final, cast
from weakref import WeakKeyDictionary

from vkfuse.errors import InputError, remedy
from vkfuse.pages import digest

LIMIT: Final = 512 << 20  # bytes of what cannot be mapped: stdin, a pipe, a device
_CHUNK: Final = 1 << 20
_State = tuple[int, ...]
_STATES: Final[WeakKeyDictionary[mmap.mmap, _State]] = WeakKeyDictionary()  # of files when they were mapped
_HASHES: Final[dict[_State, bytes]] = {}


def map_file(
    path: Path | str, *, writable: bool = False, limit: int = LIMIT, begins: bytes = b""
) -> memoryview:
    """Return the file's bytes, mapped; `-` is stdin. What is written to a `writable` one stays in this process.

    Raises InputError, also past `limit` bytes of what cannot be mapped; of that nothing more is read where it does not
    begin with `begins`.
    """
    name = "stdin" if str(path) == "-" else str(path)
    try:
        if str(path) == "-":
            return map_open(sys.stdin.buffer, name, writable=writable, limit=limit, begins=begins)
        with Path(path).open("rb", buffering=0) as file:
            return map_open(file, name, writable=writable, limit=limit, begins=begins)
    except OSError as error:
        raise InputError(f"cannot read {name}: {error.strerror or error}", hint=remedy(error)) from error


def map_open(
    file: IO[bytes], name: str, *, writable: bool = False, limit: int = LIMIT, begins: bytes = b""
) -> memoryview:
    """Return the bytes of an open file, mapped where it is a regular one that nobody has read from. InputError."""
    return _map(file, mmap.ACCESS_COPY if writable else mmap.ACCESS_READ) or _read(file, name, limit, begins)


def hashed(data: memoryview) -> bytes:
    """Return the SHA-256 of all of a file that nobody has written to here: once for a file while that stays as it is."""
    whole = data.obj
    state = _STATES.get(whole) if isinstance(whole, mmap.mmap) and len(whole) == len(data) else None
    if state is None:
        return digest(data, unwritten=True)
    if state not in _HASHES:
        _HASHES[state] = digest(data, unwritten=True)
    return _HASHES[state]


def _map(file: IO[bytes], access: int) -> memoryview | None:
    """Return the mapped file; None for what cannot be mapped, an empty file included."""
    try:
        descriptor = file.fileno()
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or not status.st_size or os.lseek(descriptor, 0, os.SEEK_CUR):
            return None
        mapped = mmap.mmap(descriptor, 0, access=access)
    except (ValueError, OSError):
        return None
    _STATES[mapped] = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return memoryview(mapped)


def _read(file: IO[bytes], name: str, limit: int, begins: bytes) -> memoryview:
    """Read a pipe or a device to its end."""
    data = bytearray()
    while data.startswith(begins[: len(data)]) and (chunk := file.read(_CHUNK)):
        data += chunk
        if len(data) > limit:
            raise InputError(
                f"{name}: more than {limit >> 20} MiB, which is read of a pipe or a device at most",
                hint="write it to a file, which is mapped whatever its size",
            )
    return memoryview(data)


def leading(path: Path | str, count: int) -> bytes:
    """Return the first bytes of a file, or of stdin for `-`, which is read later as if nobody had looked.

    Of a pipe those that have come. InputError.
    """
    name = "stdin" if str(path) == "-" else str(path)
    try:
        if str(path) != "-":
            with Path(path).open("rb") as file:
                return file.read(count)
        stdin = sys.stdin.buffer
        if stat.S_ISREG(os.fstat(stdin.fileno()).st_mode):
            return os.pread(stdin.fileno(), count, 0)
        return bytes(cast("io.BufferedReader", stdin).peek(count)[:count])
    except io.UnsupportedOperation:  # a stdin that is no file, as tests have it
        return b""
    except OSError as error:
        raise InputError(f"cannot read {name}: {error.strerror or error}", hint=remedy(error)) from error
