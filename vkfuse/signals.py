"""The signals that end a run which cleans up behind itself."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Final, NoReturn

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """Ctrl-C, a cancelled job or a terminal that went away. No Exception: upstream swallows those."""


def interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    """Raise Interrupted, and let nothing interrupt what cleans up."""
    for number in SIGNALS:
        signal.signal(number, _pass)  # not SIG_IGN, which Python complains about where a signal has just come
    raise Interrupted


def _pass(_signal: int, _frame: FrameType | None) -> None:
    """Do nothing."""


def listen() -> None:
    """Let the signals raise Interrupted, SIGHUP only where `nohup` has not told to ignore it."""
    for number in SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, interrupt)


def ignore() -> None:
    """Let the signals do nothing: the run is over."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def handled_by(handler: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    """Let `handler` have the signals within. Only in the main thread."""
    before = {number: known for number in SIGNALS if (known := signal.getsignal(number)) is not None}
    for number in before:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, known in before.items():
            signal.signal(number, known)
