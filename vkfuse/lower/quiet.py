"""Keep upstream's logging, warnings and prints away from the user."""

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet(*, verbose: bool = False) -> Iterator[None]:
    """Within, nothing that upstream prints, logs or warns reaches stdout or stderr, unless `verbose`.

    Verbose output goes to stderr: stdout may carry the result.
    """
    root = logging.getLogger()
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
            yield
    finally:
        logging.disable(logging.NOTSET)
        root.setLevel(level)
