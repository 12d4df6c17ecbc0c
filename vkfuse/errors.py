"""The errors that a user sees: one line, a remedy, and the exit code of the command."""

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
    """A malformed binary file. `field` is the path of the bad field (`execution_plan[0].values[3].sizes`)."""

    def __init__(self, message: str, *, field: str = "", hint: str = "") -> None:
        super().__init__(f"{field}: {message}" if field else message, hint=hint)
        self.field = field


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
