"""The errors that a user sees: one line, a remedy, and the exit code of the command."""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import ClassVar


class ExitCode(IntEnum):
    """Exit codes of the command line tool."""

    OK = 0
    CHECK_FAILED = 1  # a check that the user asked for: budget, requirement, diff, verify
    USAGE = 2  # bad usage, unreadable input, unwritable output
    LOWERING = 3  # the program could not be lowered to a loadable file
    INTERRUPTED = 130  # Ctrl-C, as shells count it
    BROKEN_PIPE = 141  # the reader of stdout went away, likewise


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


class MissingPackageError(VkfuseError):
    """A command needs a package that is not installed."""


class CheckFailedError(VkfuseError):
    """A check that the user asked for failed."""

    exit_code = ExitCode.CHECK_FAILED


class LoweringError(VkfuseError):
    """The program could not be lowered to a loadable file."""

    exit_code = ExitCode.LOWERING
