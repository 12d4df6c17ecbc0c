"""Standard streams of the command line: stdout fails with a remedy, stderr never, and one that is closed is told of."""

import contextlib
import io
import os
import select
import sys
from typing import IO, BinaryIO, Final, TextIO, cast

from vkfuse.errors import OutputError, remedy

STDIN, STDOUT, STDERR = 0, 1, 2
_CLOSED: Final = "it is closed"


class ReaderGoneError(BaseException):
    """The reader of stdout went away. No Exception: Typer, Rich and upstream make something else of those."""


class _Descriptor(io.RawIOBase):
    """Writes to a descriptor, waiting where it would block."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def _write(self, data: memoryview) -> int:
        left = memoryview(data).cast("B")
        while left:
            try:
                left = left[os.write(self._descriptor, left) :]
            except BlockingIOError:
                select.select([], [self._descriptor], [])
        return len(data)


class _Result(_Descriptor):
    """Stdout. OutputError where it cannot be written, ReaderGoneError where nobody reads; the rest is dropped then."""

    _failed = False

    def write(self, data: memoryview) -> int:  # type: ignore[override]
        if self._failed:
            return len(data)
        try:
            return self._write(data)
        except BrokenPipeError as error:
            self._failed = True
            raise ReaderGoneError from error
        except OSError as error:
            self._failed = True
            raise OutputError(f"cannot write to stdout: {error.strerror}", hint=remedy(error)) from error


class _ClosedResult(io.RawIOBase):
    """A stdout that was closed before the program began."""

    _failed = False

    def writable(self) -> bool:
        return True

    def write(self, data: memoryview) -> int:  # type: ignore[override]
        if self._failed:
            return len(data)
        self._failed = True
        raise stdout_closed()


class _Messages(_Descriptor):
    """Stderr: what cannot be written is dropped, because no message is worth a result."""

    def write(self, data: memoryview) -> int:  # type: ignore[override]
        with contextlib.suppress(OSError):
            return self._write(data)
        return len(data)


class _ClosedInput(io.RawIOBase):
    """A stdin that was closed before the program began."""

    def readable(self) -> bool:
        return True

    def readinto(self, _buffer: object) -> int:
        raise OSError(0, _CLOSED)


def prepare() -> None:
    """Put streams of ours in place of Python's own; leave those that somebody else has put there.

    Descriptors that were closed are opened on /dev/null, or the next file would get their number and what upstream
    prints. Text that the encoding lacks is escaped.
    """
    for descriptor in (STDIN, STDOUT, STDERR):
        _fill(descriptor)
    if sys.stdin is None:
        sys.stdin = io.TextIOWrapper(io.BufferedReader(_ClosedInput()))
    if sys.stdout is sys.__stdout__:
        raw = _ClosedResult() if sys.stdout is None else _Result(STDOUT)
        sys.stdout = _text(raw, sys.stdout, by_line=raw.isatty())
    if sys.stderr is sys.__stderr__:
        sys.stderr = _text(_Messages(STDERR), sys.stderr, by_line=True)


def _fill(descriptor: int) -> None:
    try:
        os.fstat(descriptor)
    except OSError:
        opened = os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this one
        if opened != descriptor:
            os.dup2(opened, descriptor)
            os.close(opened)


def _text(raw: io.RawIOBase, like: TextIO | None, *, by_line: bool) -> TextIO:
    # Without a BufferedWriter, which would write a second time what a signal interrupts it in.
    encoding = "utf-8" if like is None else like.encoding
    return io.TextIOWrapper(
        cast("BinaryIO", raw), encoding=encoding, errors="backslashreplace", line_buffering=by_line
    )


def require_stdout() -> IO[bytes]:
    """Stdout for bytes. OutputError where it is closed."""
    if sys.stdout is None or isinstance(sys.stdout.buffer, _ClosedResult):
        raise stdout_closed()
    return sys.stdout.buffer


def stdout_closed() -> OutputError:
    """The error of a stdout that is closed."""
    return OutputError(
        f"cannot write to stdout: {_CLOSED}", hint="send it to a file, or to /dev/null where it is not wanted"
    )
