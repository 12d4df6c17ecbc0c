"""Where bytes are in memory, and giving back what was mapped of a file."""

import hashlib
import mmap
from collections.abc import Iterator
from typing import Final

import numpy as np

_CHUNK: Final = 4 << 20
_DONT_NEED: Final = getattr(mmap, "MADV_DONTNEED", None)


def address(data: memoryview) -> int:
    """Return where bytes are in memory, which tells views of one place from others; 0 for none."""
    if not len(data):
        return 0
    return int(np.frombuffer(data, np.uint8).__array_interface__["data"][0])


def forget(view: memoryview, *, unwritten: bool = False) -> None:
    """Let the system take back the memory of a view's pages; they are read again when somebody asks.

    Only of a mapping that is read-only, or that is `unwritten` yet: whatever else the view is of stays.
    """
    mapped = view.obj
    if _DONT_NEED is None or not isinstance(mapped, mmap.mmap):
        return
    if not (unwritten or memoryview(mapped).readonly):
        return
    start = address(view) - address(memoryview(mapped))
    first = start - start % mmap.PAGESIZE
    if view:
        mapped.madvise(_DONT_NEED, first, start + len(view) - first)


def passing(data: memoryview, *, unwritten: bool = False) -> Iterator[memoryview]:
    """Yield bytes piece by piece; what is mapped of a piece is given back (`forget`) once the next one is asked for."""
    for start in range(0, len(data), _CHUNK):
        chunk = data[start : start + _CHUNK]
        yield chunk
        forget(chunk, unwritten=unwritten)


def digest(data: memoryview) -> bytes:
    """Return the SHA-256 of bytes."""
    summed = hashlib.sha256()
    for chunk in passing(data):
        summed.update(chunk)
    return summed.digest()
