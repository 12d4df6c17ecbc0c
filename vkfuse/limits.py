"""`--max-memory` and `--timeout`: the run goes on in a child process, which its parent watches and ends.

A handler or a thread of the run itself would wait for a C call that never returns. The parent imports nothing heavy.
"""

import contextlib
import ctypes
import os
import re
import select
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Final

from vkfuse.errors import LimitError
from vkfuse.output import collect
from vkfuse.quantities import mebibytes
from vkfuse.signals import handled_by

_INTERVAL: Final = 0.05  # seconds between two looks
_STOP_WAIT: Final = 1.0  # seconds for a process to stop, which one inside a system call may not
_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
# What a process takes for itself: not the pages of files that it maps, which the system can drop at any time.
_OWN_MEMORY: Final = re.compile(rb"^(?:RssAnon|RssShmem|VmSwap):\s*(\d+) kB$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bytes of memory and seconds that a run may take; None is without a limit."""

    memory: int | None = None
    seconds: float | None = None


def enforce(limits: Limits, outputs: Iterable[Path]) -> Callable[[], object]:
    """Go on in a child process under `limits`; the parent ends with the child's exit code, or raises LimitError.

    Without a limit nothing is forked. Gives the function that lifts the limits, for when `outputs` are about to be renamed.
    """
    if limits == Limits():
        return lambda: None
    if limits.memory is not None and not _own_memory(os.getpid()):
        raise LimitError(
            "--max-memory needs /proc/PID/status, as Linux has it", hint="use ulimit or a container"
        )
    reader, writer = os.pipe()
    parent, child = os.getpid(), os.fork()
    if child:
        os.close(writer)
        sys.exit(_watch(child, reader, limits, [*outputs]))
    os.close(reader)
    _follow(parent)
    return lambda: os.write(writer, b".")


def _follow(parent: int) -> None:
    """Be a group of its own, which can be killed as a whole, and end with the parent."""
    os.setpgid(0, 0)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _watch(child: int, reader: int, limits: Limits, outputs: list[Path]) -> int:
    """The exit code of `child`. `reader` has something to read once it ends or may no longer be stopped."""
    with contextlib.suppress(OSError):  # the child does the same, whoever is first
        os.setpgid(child, child)
    started = time.monotonic()

    def forward(number: int, _frame: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, number)

    with handled_by(forward):
        while not _ready(reader, 0):
            left = _INTERVAL if limits.seconds is None else started + limits.seconds - time.monotonic()
            reason = _exceeded(child, left, limits)
            if reason and not _outran(child, reader):
                _kill(child, outputs)
                raise LimitError(reason[0], hint=reason[1])
            _ready(reader, max(0.0, min(_INTERVAL, left)))
        return _exit_code(os.waitpid(child, 0)[1])


def _ready(reader: int, seconds: float) -> bool:
    return bool(select.select([reader], [], [], seconds)[0])


def _exceeded(child: int, seconds_left: float, limits: Limits) -> tuple[str, str] | None:
    """Why the run must end, and what to do."""
    if limits.seconds is not None and seconds_left <= 0:
        return f"not done after {limits.seconds:g} s, the limit of --timeout", "allow more with --timeout"
    if limits.memory is not None and (taken := sum(map(_own_memory, _family(child)))) > limits.memory:
        return (
            f"took {mebibytes(taken)} of memory, more than the {mebibytes(limits.memory)} of --max-memory",
            "allow more with --max-memory",
        )
    return None


def _outran(child: int, reader: int) -> bool:
    """Stop the child, and let it go on where it has got past the limits in between."""
    os.killpg(child, signal.SIGSTOP)
    deadline = time.monotonic() + _STOP_WAIT
    look = os.WSTOPPED | os.WEXITED | os.WNOWAIT | os.WNOHANG
    while os.waitid(os.P_PID, child, look) is None and time.monotonic() < deadline:
        time.sleep(0.001)
    if not _ready(reader, 0):
        return False
    os.killpg(child, signal.SIGCONT)
    return True


def _kill(child: int, outputs: list[Path]) -> None:
    """End the whole group and remove its temporaries."""
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with contextlib.suppress(OSError):
        for folder in {
            Path(tempfile.gettempdir()),
            *(Path(os.path.realpath(path)).parent for path in outputs),
        }:
            collect(folder)
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[2K\x1b[?25h")  # the line and the cursor that a spinner had


def _exit_code(status: int) -> int:
    """The exit code of a child, as a shell counts it where a signal ended it."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return code
    sys.stderr.write(f"vkfuse: error: ended by {signal.Signals(-code).name}\n")
    return 128 - code


def _own_memory(process: int) -> int:
    """Bytes that a process takes for itself; 0 of one that is gone."""
    try:
        status = Path(f"/proc/{process}/status").read_bytes()
    except OSError:
        return 0
    return 1024 * sum(map(int, _OWN_MEMORY.findall(status)))


def _family(process: int) -> Iterator[int]:
    """A process and its descendants."""
    yield process
    with contextlib.suppress(OSError):
        for children in Path(f"/proc/{process}/task").glob("*/children"):
            for child in children.read_text().split():
                yield from _family(int(child))
