"""Keep upstream's logging, warnings and prints away from the user."""

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from typing import TextIO


@contextlib.contextmanager
def quiet(*, verbose: bool = False) -> Iterator[None]:
    """Within, nothing that upstream prints, logs or warns reaches stdout or stderr, unless `verbose`.

    Verbose output goes to stderr: stdout may carry the result.
    """
    root, outside = logging.getLogger(), sys.stderr
    level = root.level
    try:
        with contextlib.ExitStack() as stack:
            if verbose:
                stack.enter_context(contextlib.redirect_stdout(sys.stderr))
            else:
                sink = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123 - a device
                stack.enter_context(warnings.catch_warnings())
                warnings.simplefilter("ignore")
                stack.enter_context(contextlib.redirect_stdout(sink))
                stack.enter_context(contextlib.redirect_stderr(sink))
                logging.disable(logging.CRITICAL)
                stack.callback(_retarget, sink, outside)
            yield
    finally:
        logging.disable(logging.NOTSET)
        root.setLevel(level)


def _retarget(sink: TextIO, stream: TextIO) -> None:
    """Let handlers that were made within, as torch's are on import, write to `stream` from now on."""
    loggers = [logging.getLogger(), *map(logging.getLogger, logging.root.manager.loggerDict)]
    for handler in (handler for logger in loggers for handler in logger.handlers):
        if isinstance(handler, logging.StreamHandler) and handler.stream is sink:
            handler.setStream(stream)
