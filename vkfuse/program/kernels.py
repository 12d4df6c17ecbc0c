"""Keep what ExecuTorch's own CPU kernels write to the process' standard error away from the user."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_STDERR: Final = 2  # the descriptor that compiled code writes to, whatever sys.stderr is


@contextmanager
def silenced_kernels() -> Iterator[None]:
    """Within, nothing reaches standard error's descriptor, to which these kernels log each call, asked or not."""
    sys.stderr.flush()
    kept = os.dup(_STDERR)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, _STDERR)
        yield
    finally:
        os.dup2(kept, _STDERR)
        os.close(nowhere)
        os.close(kept)
