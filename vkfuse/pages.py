"""Where bytes are in memory, and giving back what was mapped of a file, or freed."""

import ctypes
import gc
import hashlib
import mmap
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

_CHUNK: Final = 4 << 20
_SHARE: Final = 32  # memory may be more than before by this part of all, until something is given back
_EVERY: Final = 0.02  # seconds
_SELDOM: Final = (1_000, 20, 100)  # collections of Python's three kinds; its own are (700, 10, 10)
_STATUS: Final = Path("/proc/self/statm")  # pages: all, in memory, of these mapped from files (man 5 proc)
_DONT_NEED: Final = getattr(mmap, "MADV_DONTNEED", None)


class _Buffer(ctypes.Structure):
    """`Py_buffer`, a part of Python's stable interface."""

    _fields_ = (
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.py_object),
        *((name, ctypes.c_ssize_t) for name in ("len", "itemsize")),
        *((name, ctypes.c_int) for name in ("readonly", "ndim")),
        *((name, ctypes.c_void_p) for name in ("format", "shape", "strides", "suboffsets", "internal")),
    )


def address(data: memoryview) -> int:
    """Return where bytes are in memory, which tells views of one place from others; 0 for none."""
    if not len(data):
        return 0
    buffer = _Buffer()
    ctypes.pythonapi.PyObject_GetBuffer(ctypes.py_object(data), ctypes.byref(buffer), 0)
    try:
        return int(buffer.buf)
    finally:
        ctypes.pythonapi.PyBuffer_Release(ctypes.byref(buffer))


def forget(view: memoryview, *, unwritten: bool = False) -> None:
    """Let the system take back the memory of a view's pages; they are read again when somebody asks.

    Only of a mapping that is read-only, or that is `unwritten` yet: whatever else the view is of stays. It may be
    of an array over the mapping.
    """
    mapped: object = view
    while mapped is not None and not isinstance(mapped, mmap.mmap):
        mapped = mapped.obj if isinstance(mapped, memoryview) else getattr(mapped, "base", None)
    if _DONT_NEED is None or mapped is None:
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


def digest(data: memoryview, *, unwritten: bool = False) -> bytes:
    """Return the SHA-256 of bytes; what is mapped of them is given back (`forget`)."""
    summed = hashlib.sha256()
    for chunk in passing(data, unwritten=unwritten):
        summed.update(chunk)
    return summed.digest()


@contextmanager
def seldom_collected() -> Iterator[None]:
    """Within, Python looks less often for objects that only refer to each other.

    A run makes millions of objects that stay, imports included: to look through all of them takes a tenth of its time. The
    youngest are looked through as often, while the processor's caches still have them; what passes leave behind is large.
    """
    usual = gc.get_threshold()
    if usual[0]:
        gc.set_threshold(*map(max, usual, _SELDOM))
    try:
        yield
    finally:
        gc.set_threshold(*usual)


@contextmanager
def thrifty() -> Iterator[Callable[[memoryview], None]]:
    """Within, what the system can have back is given back as it grows: freed memory, and pages of the views told of.

    The views are of mapped files that nobody writes to. Where no system says what is in memory nothing happens.
    """
    views: list[memoryview] = []
    done = threading.Event()
    if _STATUS.exists():
        threading.Thread(target=_watch, args=(views, done, *_in_memory()), daemon=True).start()
    try:
        yield views.append
    finally:
        done.set()


def _watch(views: list[memoryview], done: threading.Event, own: int, mapped: int) -> None:
    """Give back until `done` what is more than was in memory of either kind, where all is nearly as much as ever.

    Tables are packed in pieces, between which an allocator is left with holes of their size. What is given back is soon
    asked for again, page by page, and only the most that was in memory counts.
    """
    most = own + mapped
    with suppress(OSError, ValueError):
        while not done.wait(_EVERY):
            now = _in_memory()
            most, grown = max(most, sum(now)), sum(now) // _SHARE
            if sum(now) < most - 2 * grown:
                continue
            if now[1] > mapped + grown:
                for view in tuple(views):
                    forget(view, unwritten=True)
                mapped = _in_memory()[1]
            if now[0] > own + grown:
                _trim(0)
                own = _in_memory()[0]


def _in_memory() -> tuple[int, int]:
    """Bytes of this process in memory: its own, and those that are mapped from files."""
    resident, shared = (int(pages) * mmap.PAGESIZE for pages in _STATUS.read_text().split()[1:3])
    return resident - shared, shared


_trim: Final = getattr(ctypes.pythonapi, "malloc_trim", lambda _keep: None)  # glibc's
