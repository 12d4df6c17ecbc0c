"""The errors that a user sees: one line, a remedy, and the exit code of the command."""

import errno
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import IntEnum
from typing import ClassVar, Final, Self


class ExitCode(IntEnum):
    """Exit codes of the command line tool, and what each means: the table of the README."""

    meaning: str

    OK = 0, "done"
    CHECK_FAILED = (
        1,
        "a check that was asked for failed: a gate, or the file does not compute what the program does",
    )
    USAGE = 2, "bad usage, unreadable input, unwritable output, or a limit of time or memory was reached"
    LOWERING = 3, "the program could not be lowered to a file that the runtime loads"
    FAULT = 70, "a fault in vkfuse itself"
    INTERRUPTED = 130, "interrupted by Ctrl-C, SIGTERM or SIGHUP; nothing was written"
    BROKEN_PIPE = 141, "the reader of stdout went away"

    def __new__(cls, code: int, meaning: str) -> Self:
        """A member that is its code."""
        member = int.__new__(cls, code)
        member._value_ = code
        member.meaning = meaning
        return member


class VkfuseError(Exception):
    """Base of all errors meant for a user. `message` says what and where, `hint` what to do."""

    exit_code: ClassVar[ExitCode] = ExitCode.USAGE

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class InputError(VkfuseError):
    """A file that cannot be read as what it should be."""


class FormatError(InputError):
    """A malformed binary file.

    `reason` is what is wrong, `field` the path of the bad field (`execution_plan[0].values[3].sizes`), `path` the file.
    """

    def __init__(self, reason: str, *, field: str = "", path: str = "", hint: str = "") -> None:
        super().__init__(": ".join(part for part in (path, field, reason) if part), hint=hint)
        self.reason, self.field, self.path = reason, field, path


@contextmanager
def naming(path: str) -> Iterator[None]:
    """Let a FormatError raised within name the file `path`, and say what to do."""
    try:
        yield
    except FormatError as error:
        if error.path or not path:
            raise
        hint = error.hint or "the file is damaged or of another kind: write or copy it again"
        raise FormatError(error.reason, field=error.field, path=path, hint=hint) from error


class UnsafePickleError(InputError):
    """A pickle inside a .pt2 asks for a name that is not on the allowlist."""


class OutputError(VkfuseError):
    """The output cannot be written."""


class LimitError(VkfuseError):
    """A limit of time or memory was reached."""


class MissingPackageError(VkfuseError):
    """A command needs a package that is not installed."""


class CheckFailedError(VkfuseError):
    """A check that the user asked for failed."""

    exit_code = ExitCode.CHECK_FAILED


class LoweringError(VkfuseError):
    """The program could not be lowered to a loadable file."""

    exit_code = ExitCode.LOWERING


_SPACE: Final = "free some space, or write elsewhere"
_FILES: Final = "raise the limit on open files (ulimit -n)"
_REMEDIES: Final[Mapping[int, str]] = {
    errno.ENOSPC: _SPACE,
    errno.EDQUOT: _SPACE,
    errno.EFBIG: "raise the limit on the size of files (ulimit -f), or write elsewhere",
    errno.EMFILE: _FILES,
    errno.ENFILE: _FILES,
    errno.ELOOP: "its symbolic links lead to each other: repair them",
    errno.ENOMEM: "free some memory",
    errno.EROFS: "write elsewhere",
    errno.EISDIR: "give the file itself, not the folder that holds it",
}


def spelled(error: BaseException) -> str:
    """`ValueError: what it says first`: an error of somebody else's in a line."""
    kind, text = type(error).__name__, str(error).strip()
    return f"{kind}: {text.splitlines()[0][:300]}" if text else kind


def remedy(error: OSError, otherwise: str = "check the path and its permissions") -> str:
    """What to do about an error of the system."""
    return _REMEDIES.get(error.errno or 0, otherwise)
