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
    with _reported(target):
        if target.is_dir():
            raise IsADirectoryError(21, "is a directory")
        place = _place(target)
        folder = None if place is None else place.parent
        descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=folder)
        os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        with _reported(target):
            _publish(temporary, target, place)
    finally:
        temporary.unlink(missing_ok=True)


def _place(target: Path) -> Path | None:
    """The regular file that `target` is or will be, links followed; None for stdout, a device or a pipe."""
    if str(target) == "-":
        return None
    resolved = target.resolve()
    return None if resolved.exists() and not resolved.is_file() else resolved


def _publish(temporary: Path, target: Path, place: Path | None) -> None:
    if place is None:
        with contextlib.nullcontext(sys.stdout.buffer) if str(target) == "-" else target.open("wb") as stream:
            with temporary.open("rb") as source:
                shutil.copyfileobj(source, stream)
            stream.flush()
        return
    with temporary.open("rb") as written:
        os.fsync(written.fileno())
    temporary.chmod(place.stat().st_mode & 0o777 if place.exists() else 0o666 & ~_umask())
    temporary.replace(place)


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
