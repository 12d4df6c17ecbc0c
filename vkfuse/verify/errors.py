"""How a run of a file ends short: not loadable, not verifiable, or failing on the way."""

from collections.abc import Sequence

from vkfuse.errors import CheckFailedError, InputError
from vkfuse.lint.findings import Finding
from vkfuse.pte.place import Place


class NotLoadableError(CheckFailedError):
    """The runtime would refuse the file; `findings` say what and where."""

    def __init__(self, findings: tuple[Finding, ...]) -> None:
        first, more = findings[0], len(findings) - 1
        tail = f", and {more} more" if more else ""
        super().__init__(
            f"the runtime does not load this: {first.code}: {first.name} in {first.where}{tail}",
            hint=first.hint,
        )
        self.findings = findings


class NoInputsError(InputError):
    """Inputs that the program itself does not take, or not as it says: it raises, or returns other dimensions."""


class CannotVerifyError(CheckFailedError):
    """An operator that the executor does not know: neither a pass nor a failure of the file."""

    def __init__(self, operator: str, where: Place, reason: str = "no definition of it here") -> None:
        super().__init__(f"cannot verify: {operator} in {where}: {reason}")
        self.operator = operator
        self.where = where


class RandomProgramError(CheckFailedError):
    """A program of which no two calls need agree, neither a pass nor a failure of its file; `nodes` draw numbers."""

    def __init__(self, nodes: Sequence[str]) -> None:
        super().__init__(
            f"cannot verify: the program draws random numbers ({', '.join(nodes[:3])}), so that no two calls agree",
            hint="export it after model.eval(), which leaves dropout out, or give the numbers as an input",
        )


class ExecutionError(CheckFailedError):
    """An operator that cannot be computed on the values it was given; the device would fail there too."""

    def __init__(self, operator: str, where: Place, reason: str) -> None:
        super().__init__(f"{operator} in {where} fails: {reason}")
        self.operator = operator
        self.where = where


class NotInStepError(Exception):
    """Calls that have to be run one after the other; the message says why."""


def first_line(error: Exception) -> str:
    """Return what an error says first, or its kind where it says nothing."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__
