"""Keep upstream's logging, warnings and prints away from the user, and leave the process as it was found."""

import contextlib
import io
import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import TextIO

_ONE_AT_A_TIME = threading.RLock()  # logging, warnings, streams and ExecuTorch's registries are the process's


@contextlib.contextmanager
def quiet(*, verbose: bool = False) -> Iterator[None]:
    """Within, nothing that upstream prints, logs or warns reaches stdout or stderr, unless `verbose`.

    Verbose output goes to stderr: stdout may carry the result. What other threads print is theirs. One thread at a time is
    within; the next waits. Streams, warning filters and the root logger are afterwards as they were.
    """
    with _ONE_AT_A_TIME, contextlib.ExitStack() as stack:
        stack.callback(
            _restore_logging, logging.root.manager.disable, logging.root.level, [*logging.root.handlers]
        )
        if verbose:
            stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        else:
            out, err = _Muted(sys.stdout), _Muted(sys.stderr)
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
            stack.callback(_retarget, out, sys.stdout)
            stack.callback(_retarget, err, sys.stderr)
            stack.enter_context(contextlib.redirect_stdout(out))
            stack.enter_context(contextlib.redirect_stderr(err))
            logging.disable(logging.CRITICAL)
        yield


class _Muted(io.TextIOBase):
    """A stream that drops what the thread that made it writes, and passes on what others do."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._thread = stream, threading.get_ident()

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, text: str) -> int:
        """Drop or pass on `text`."""
        return len(text) if threading.get_ident() == self._thread else self._stream.write(text)

    def flush(self) -> None:
        """Flush what others have written; the stream may have none, or be closed."""
        if threading.get_ident() != self._thread:
            self._stream.flush()


def _restore_logging(disabled: int, level: int, handlers: list[logging.Handler]) -> None:
    logging.disable(disabled)
    logging.root.setLevel(level)
    logging.root.handlers[:] = handlers


def _retarget(sink: _Muted, stream: TextIO) -> None:
    """Let handlers that were made within, as torch's are on import, write to `stream` from now on."""
    loggers = [logging.getLogger(), *map(logging.getLogger, logging.root.manager.loggerDict)]
    for handler in (handler for logger in loggers for handler in logger.handlers):
        if isinstance(handler, logging.StreamHandler) and handler.stream is sink:
            handler.setStream(stream)
