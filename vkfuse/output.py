"""The files of a run are published together or not at all; a failed run leaves what was there.

Each is written to a temporary beside its target, which is synced and renamed once all are whole. A run holds a lock on its
temporaries, so that the next one can tell what a killed run left behind from what a running one still needs.
"""

import contextlib
import errno
import fcntl
import os
import re
import secrets
import shutil
import signal
import stat
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO, Final, Self

from vkfuse.errors import OutputError, remedy
from vkfuse.signals import Interrupted, handled_by
from vkfuse.streams import STDIN, STDOUT, ReaderGoneError, require_stdout

_TEMPORARY: Final = re.compile(r"\.vkfuse-[0-9a-f]{8}\.tmp")
_STDOUT_NAMES: Final = {"-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"}
_ANY_WRITE: Final = 0o222
_OTHERS_WRITE: Final = 0o022
_EFFECTIVE: Final = os.access in os.supports_effective_ids
_Key = tuple[object, ...]  # tells whether two names are one file


@dataclass(frozen=True, slots=True, kw_only=True)
class _Named:
    """A file and what the user calls it: an option or argument, and the path."""

    role: str
    path: str
    key: _Key | None

    def __str__(self) -> str:
        return " ".join(part for part in (self.role, self.path) if part)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Output:
    """A target, the regular file that it is or will be (None for stdout, a device, a pipe), and the temporary for it."""

    target: Path
    place: Path | None
    old: os.stat_result | None
    temporary: Path
    lock: int


class Publication:
    """The outputs of a run. Within the block they are written to temporaries; at its end all are published or none.

    A report is printed to stdout after everything is written, within the block, because a full device must undo the rest.
    Raises OutputError, before any work, for what cannot be written and for an output that is another file of the run.
    """

    def __init__(self, *, before_renames: Callable[[], object] = lambda: None) -> None:
        self._read: list[_Named] = []
        self._written: list[_Named] = []
        self._outputs: list[_Output] = []
        self._before_renames = before_renames
        self.published = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, _error: object, _traceback: object) -> None:
        try:
            if kind is None or kind is ReaderGoneError:  # who reads the printed report decides nothing
                self.publish()
        except Interrupted:
            if not self.published:
                raise
        finally:
            self._drop()

    def reads(self, role: str, path: Path) -> None:
        """Say that the run reads `path` (`-` is stdin), which no output may be."""
        name, is_stdin = str(path), str(path) == "-"
        named = _Named(role=role, path=name, key=_of_descriptor(STDIN) if is_stdin else _of_path(path))
        _check_apart(named, self._written)
        self._read.append(named)

    def prints(self) -> None:
        """Say that the run prints to stdout. OutputError where it is closed, or leads to a file of the run."""
        require_stdout()
        self._claim(_Named(role="", path="stdout", key=_of_stdout()))

    def file(self, target: Path, role: str = "") -> Path:
        """A temporary to write in place of `target`, which is stdout where it is `-`."""
        key: _Key | None
        if str(target) in _STDOUT_NAMES:
            require_stdout()
            place = old = None
            key = _of_stdout()
        else:
            with reported(target):
                place, old = _look(target)
                key = None if place is None else _of_path(place)
        self._claim(_Named(role=role, path=str(target), key=key))
        with _uninterrupted():  # a file that is there is one to drop
            temporary, lock = _beside(place, target, 0o600 if old else 0o666)
            self._outputs.append(_Output(target=target, place=place, old=old, temporary=temporary, lock=lock))
        return temporary

    def withhold(self, temporary: Path) -> None:
        """Leave the target of `temporary` what it is."""
        (output,) = (output for output in self._outputs if output.temporary == temporary)
        self._outputs.remove(output)
        _discard(output)

    def publish(self) -> None:
        """Publish what was written, once. OutputError, and then every file is what it was."""
        if self.published:
            return
        files = [(output, output.place) for output in self._outputs if output.place is not None]
        for output, _ in files:
            with reported(output.target):
                _settle(output)
        for output in self._outputs:
            if output.place is None:
                with reported(output.target):
                    _send(output)
        self._before_renames()
        with _uninterrupted():
            # The largest is the last, which needs no second copy of the old one.
            _rename(sorted(files, key=lambda pair: pair[0].temporary.stat().st_size))
            self.published = True

    def _claim(self, named: _Named) -> None:
        _check_apart(named, [*self._read, *self._written])
        self._written.append(named)

    def _drop(self) -> None:
        for output in self._outputs:
            _discard(output)
        self._outputs.clear()


@dataclass(frozen=True, slots=True, kw_only=True)
class Into:
    """Where the files of a run are written: the model, and the file before where it is kept."""

    model: Path
    baseline: Path | None = None


@contextlib.contextmanager
def published(
    target: Path, read: Iterable[object], *, into: Into | None = None, keep: Path | None = None
) -> Iterator[Into]:
    """The files to write: `into`, which the caller publishes, or some that become their targets at the end.

    `read` has the paths of what the run reads, OutputError where one is an output; what is no path is in memory. A baseline
    to `keep` that stays empty is left out.
    """
    if into is not None:
        yield into
        return
    with Publication() as publication:
        for path in read:
            if isinstance(path, Path | str):
                publication.reads("input", Path(path))
        places = Into(
            model=publication.file(target, "output"),
            baseline=keep and publication.file(keep, "keep_baseline"),
        )
        yield places
        if places.baseline is not None and not places.baseline.stat().st_size:
            publication.withhold(places.baseline)


def _discard(output: _Output) -> None:
    output.temporary.unlink(missing_ok=True)
    os.close(output.lock)


def write(path: Path, fill: Callable[[IO[bytes]], object], target: Path) -> None:
    """Let `fill` write `path`; errors name `target`. Raises OutputError."""
    with reported(target), path.open("wb") as stream:
        fill(stream)


@contextlib.contextmanager
def scratch() -> Iterator[IO[bytes]]:
    """A temporary file without a name, which no killed run can leave behind. OutputError."""
    with _in_temporary_folder(), tempfile.TemporaryFile() as stream:
        yield stream


@contextlib.contextmanager
def _in_temporary_folder() -> Iterator[None]:
    """Name the folder for temporary files in errors of the system, and say how to choose another."""
    try:
        yield
    except OSError as error:
        folder = tempfile.tempdir or "the folder for temporary files"
        raise OutputError(
            f"cannot write to {folder}: {error.strerror or error}",
            hint="set TMPDIR to a folder that has room and can be written",
        ) from error


def collect(folder: Path) -> None:
    """Remove the temporaries in `folder` that no process holds a lock on: what killed runs left."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if _TEMPORARY.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                _remove_unlocked(Path(entry.path))


def _remove_unlocked(path: Path) -> None:
    """Remove a temporary whose lock is free; leave what cannot be opened, locked or removed."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), path.lstat()):
                path.unlink()
        finally:
            os.close(descriptor)


def _beside(place: Path | None, target: Path, mode: int) -> tuple[Path, int]:
    """A new temporary beside `place`, or a private one in the folder for them where there is none, and its lock."""
    if place is None:
        with _in_temporary_folder():
            return _temporary(Path(tempfile.gettempdir()), 0o600)
    with reported(target):
        return _temporary(place.parent, mode)


def _temporary(folder: Path, mode: int) -> tuple[Path, int]:
    """A new file, and the descriptor that holds its lock; what killed runs left beside it goes. The umask applies."""
    collect(folder)
    while True:
        path = folder / f".vkfuse-{secrets.token_hex(4)}.tmp"
        with contextlib.suppress(FileExistsError):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
            if _lock(descriptor):
                return path, descriptor
            os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """Whether the file is ours: not one that another run has just taken for a killed one's and removed."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks, where nothing is collected either
        return True
    return os.fstat(descriptor).st_nlink > 0


def _look(target: Path) -> tuple[Path | None, os.stat_result | None]:
    """The regular file that `target` is or will be, links followed, and its status; OSError where it cannot be written."""
    old = _status(target)
    if old is not None and stat.S_ISDIR(old.st_mode):
        raise IsADirectoryError(21, "is a directory")
    if old is not None and not stat.S_ISREG(old.st_mode):
        return None, old
    place = Path(os.path.realpath(target))
    folder = place.parent
    if old is not None:
        _check_writable(old, place, "it")
    status = folder.stat()
    if not stat.S_ISDIR(status.st_mode):
        raise NotADirectoryError(20, f"{folder} is no folder")
    _check_writable(status, folder, "its folder")
    return place, old


def _check_writable(status: os.stat_result, path: Path, what: str) -> None:
    """OSError where the mode lets nobody write, which holds for root too, or the system does not let us."""
    if not status.st_mode & _ANY_WRITE or not os.access(path, os.W_OK, effective_ids=_EFFECTIVE):
        if os.statvfs(path).f_flag & os.ST_RDONLY:
            raise OSError(errno.EROFS, "its file system is mounted read-only")
        mode = stat.S_IMODE(status.st_mode)
        raise PermissionError(13, f"{what} may not be written (mode {mode:04o}, owner {status.st_uid})")


def _status(path: Path) -> os.stat_result | None:
    """The status of what `path` leads to, None where that is not there."""
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _of_path(path: Path) -> _Key | None:
    """The key of a regular file or of one that is not there yet; None for a device, a pipe, and what cannot be read."""
    try:
        status = _status(path)
    except OSError:
        return None
    return (os.path.realpath(path),) if status is None else _of_status(status)


def _of_stdout() -> _Key:
    return _of_descriptor(STDOUT) or ("stdout",)


def _of_descriptor(descriptor: int) -> _Key | None:
    try:
        return _of_status(os.fstat(descriptor))
    except OSError:
        return None


def _of_status(status: os.stat_result) -> _Key | None:
    return (status.st_dev, status.st_ino) if stat.S_ISREG(status.st_mode) else None


def _check_apart(named: _Named, others: list[_Named]) -> None:
    for other in others:
        if named.key is not None and named.key == other.key:
            raise OutputError(
                f"{named} and {other} are the same file", hint="give each output a name of its own"
            )


def _settle(output: _Output) -> None:
    """Sync the temporary and give it the owner and mode of what it replaces, as far as the system lets it."""
    with output.temporary.open("rb") as written:
        os.fsync(written.fileno())
    if output.old is None:
        return
    with contextlib.suppress(PermissionError):
        os.chown(output.temporary, output.old.st_uid, output.old.st_gid)
    output.temporary.chmod(stat.S_IMODE(output.old.st_mode))


def _send(output: _Output) -> None:
    """Write the bytes to stdout, a device or a pipe."""
    to_stdout = str(output.target) in _STDOUT_NAMES
    with contextlib.nullcontext(require_stdout()) if to_stdout else output.target.open("wb") as stream:
        with output.temporary.open("rb") as source:
            shutil.copyfileobj(source, stream)
        stream.flush()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    """One rename: its place, and the old file under another name where there was one that may be wanted back."""

    place: Path
    backup: Path | None
    was_there: bool

    def undo(self) -> None:
        """Make the place what it was; a last step that failed has changed nothing."""
        if self.backup is not None:
            self.backup.replace(self.place)
        elif not self.was_there:
            self.place.unlink(missing_ok=True)

    def forget(self) -> None:
        """Remove the old file."""
        if self.backup is not None:
            self.backup.unlink(missing_ok=True)


def _rename(outputs: list[tuple[_Output, Path]]) -> None:
    """Rename each temporary to its place; where one fails, put back those before it."""
    steps: list[_Step] = []
    try:
        for output, place in outputs:
            with reported(output.target):
                steps.append(_step(place, last=output is outputs[-1][0]))
                output.temporary.replace(place)
    except OutputError:
        for step in reversed(steps):
            step.undo()
        raise
    finally:
        for step in steps:
            step.forget()
    for folder in {place.parent for _, place in outputs}:
        _sync(folder)


def _step(place: Path, *, last: bool) -> _Step:
    there = place.exists()
    return _Step(place=place, backup=_kept(place) if there and not last else None, was_there=there)


def _kept(place: Path) -> Path:
    """The file under a second name; a copy on file systems that have no hard links."""
    backup = place.with_name(f".vkfuse-{secrets.token_hex(4)}.old")
    try:
        os.link(place, backup)
    except OSError:
        shutil.copy2(place, backup)
    return backup


def named_again(file: Path, place: Path) -> None:
    """Put `file` into the place of another one: under a second name, which costs nothing, or a copy of it. OSError.

    A copy where the file system gives no second name, or where others may write the file: they would reach it by a folder
    that may be open to them while its own is not.
    """
    again = place.with_name(f".vkfuse-{secrets.token_hex(4)}.tmp")
    try:
        if file.stat().st_mode & _OTHERS_WRITE:
            raise PermissionError(f"others may write {file}")
        os.link(file, again)
    except OSError:
        shutil.copyfile(file, place)
    else:
        again.replace(place)


def _sync(folder: Path) -> None:
    """Make renames in `folder` last through a power cut, where the system lets it."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Hold signals back within, so that none comes between two renames, and deliver them afterwards."""
    if threading.current_thread() is not threading.main_thread():  # where no handler runs
        yield
        return
    came: list[int] = []

    def remember(number: int, _frame: FrameType | None) -> None:
        came.append(number)

    try:
        with handled_by(remember):
            yield
    finally:
        for number in came:
            signal.raise_signal(number)


@contextlib.contextmanager
def reported(target: Path | str) -> Iterator[None]:
    """Turn the system's errors into one that names the target and a remedy."""
    try:
        yield
    except OSError as error:
        hint = remedy(error, "choose a writable path")
        raise OutputError(f"cannot write {target}: {error.strerror or error}", hint=hint) from error
