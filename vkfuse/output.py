"""Output is atomic: a temporary file beside the target, fsync, rename; a failed run leaves what was there."""

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from vkfuse.errors import OutputError


@contextlib.contextmanager
def atomic_file(target: Path) -> Iterator[Path]:
    """A temporary path to write to, renamed to `target` when the block ends well and removed when it does not.

    `-` writes to stdout. The temporary is created at once, so that an unwritable folder is found before any work.
    Raises OutputError where the target cannot be written, the disk is full included.
    """
    to_stdout = str(target) == "-"
    with _reported(target):
        if target.is_dir():
            raise IsADirectoryError(21, "is a directory")
        folder = None if to_stdout else target.parent
        descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=folder)
        os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        with _reported(target):
            _publish(temporary, target, to_stdout=to_stdout)
    finally:
        temporary.unlink(missing_ok=True)


def _publish(temporary: Path, target: Path, *, to_stdout: bool) -> None:
    if to_stdout:
        with temporary.open("rb") as source:
            shutil.copyfileobj(source, sys.stdout.buffer)
        sys.stdout.buffer.flush()
        return
    with temporary.open("rb") as written:
        os.fsync(written.fileno())
    temporary.chmod(target.stat().st_mode & 0o777 if target.exists() else 0o666 & ~_umask())
    temporary.replace(target)


def write(path: Path, fill: Callable[[IO[bytes]], object], target: Path) -> None:
    """Let `fill` write `path`; errors name `target`. Raises OutputError."""
    with _reported(target), path.open("wb") as stream:
        fill(stream)
        stream.flush()
        os.fsync(stream.fileno())


@contextlib.contextmanager
def _reported(target: Path) -> Iterator[None]:
    """Turn the system's errors into one that names the target and a remedy."""
    try:
        yield
    except OSError as error:
        full = error.errno in {28, 122}  # ENOSPC, EDQUOT
        hint = "free some space or write elsewhere with -o" if full else "choose a writable path with -o"
        raise OutputError(f"cannot write {target}: {error.strerror or error}", hint=hint) from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
