"""Files into memory without copying."""

import mmap
import sys
from pathlib import Path

from vkfuse.errors import InputError


def map_file(path: Path | str) -> memoryview:
    """Return the file's bytes, mapped read-only where the file allows it; `-` reads stdin. InputError."""
    if str(path) == "-":
        return memoryview(sys.stdin.buffer.read())
    try:
        with Path(path).open("rb") as file:
            return _map(file.fileno()) or memoryview(file.read())
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error


def _map(descriptor: int) -> memoryview | None:
    """Return the mapped file; None for pipes and empty files, which cannot be mapped."""
    try:
        return memoryview(mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ))
    except (ValueError, OSError):
        return None
