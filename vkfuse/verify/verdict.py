"""What a verification found. Plain data, without torch."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Literal

from vkfuse.errors import CheckFailedError
from vkfuse.lint.findings import Finding
from vkfuse.measure.audit import TableCheck
from vkfuse.report.model import Verify
from vkfuse.verify.errors import CannotVerifyError, NotLoadableError, RandomProgramError

Status = Literal["same", "differs", "not-loadable", "cannot-verify", "fails"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputCheck:
    """One output against the program's. `max_rel` is the error in relation to the largest value.

    `max_ulp` is in units of the last place, of values that are at least a thousandth of the largest. `top1` is
    the share of rows with the same largest entry, None where that means nothing. `limit` is the largest
    absolute error that passes.
    """

    index: int
    dtype: str
    shape: tuple[int, ...]
    max_abs: float
    max_rel: float
    max_ulp: float
    cosine: float
    sqnr_db: float
    top1: float | None
    limit: float
    passed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One set of inputs: how it was made, and each output.

    Where the runtime's arithmetic is not torch's, `reason` says how, the outputs are compared with the program in
    that arithmetic, `eager_rel` is how far the file is off torch's, and `noise` what was added to the limit.
    """

    label: str
    outputs: tuple[OutputCheck, ...]
    reason: str = ""
    eager_rel: float | None = None
    noise: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether every output is within its limit."""
        return all(output.passed for output in self.outputs)

    @property
    def difference(self) -> str:
        """The first output that is not, in words."""
        output = next(output for output in self.outputs if not output.passed)
        return (
            f"output {output.index} differs on {self.label}: {output.max_abs:.3g} absolute, "
            f"{output.max_rel:.3g} of the largest value; {output.limit:.3g} passes"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """A behaviour of the runtime that the run met, and where."""

    code: str
    summary: str
    places: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Departure:
    """The first operator of the file whose result is nowhere in the program, and the program's there."""

    operator: str
    where: str
    node: str
    source: str
    behaviours: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceCheck:
    """A lookup of the file on a Vulkan driver: whether its shader's output is the executor's, bit for bit."""

    where: str
    shader: str
    driver: str
    values: int
    differing: int

    @property
    def difference(self) -> str:
        """The difference, in words."""
        return f"{self.differing} of {self.values} values of {self.where} differ on {self.driver}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """The verdict on a file; `device_runs` are those of the whole file on a device."""

    status: Status
    message: str = ""
    hint: str = ""
    runs: tuple[Run, ...] = ()
    tables: tuple[TableCheck, ...] = ()
    device: tuple[DeviceCheck, ...] = ()
    device_runs: tuple[Run, ...] = ()
    applied: tuple[Applied, ...] = ()
    findings: tuple[Finding, ...] = ()
    departure: Departure | None = None
    skipped: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether the file computes what the program does."""
        return self.status == "same"

    @property
    def worst(self) -> OutputCheck | None:
        """The output with the largest error in relation to its limit."""
        outputs = [output for run in self.runs for output in run.outputs]
        return max(outputs, key=_badness, default=None)

    def summary(self) -> Verify:
        """Return what a report says of it."""
        worst = self.worst
        return Verify(
            ran=bool(self.runs),
            ok=None if self.status == "cannot-verify" else self.ok,
            max_abs_error=worst.max_abs if worst else None,
            max_rel_error=worst.max_rel if worst else None,
            skipped=(*self.skipped, *((self.message,) if self.message and not self.runs else ())),
        )


def _badness(output: OutputCheck) -> float:
    """Error in units of the limit; what is no number is worst."""
    if output.max_abs != output.max_abs:
        return float("inf")
    if output.limit == 0:
        return 0.0 if output.max_abs == 0 else float("inf")
    return output.max_abs / output.limit


def first_difference(
    runs: Iterable[Run],
    tables: Iterable[TableCheck],
    device: Iterable[DeviceCheck] = (),
    device_runs: Iterable[Run] = (),
) -> str:
    """The first difference that was found, in words; empty where there is none."""
    found = (
        *(run.difference for run in runs if not run.passed),
        *(table.difference for table in tables if not table.passed),
        *(check.difference for check in device if check.differing),
        *(f"on the device {run.difference}" for run in device_runs if not run.passed),
    )
    return next(iter(found), "")


def judged(judge: Callable[[], Verification]) -> Verification:
    """The verdict of `judge` and its time in seconds; where it ends short, the verdict that says how."""
    start = time.perf_counter()
    try:
        verdict = judge()
    except NotLoadableError as error:
        verdict = Verification(
            status="not-loadable", message=error.message, hint=error.hint, findings=error.findings
        )
    except (CannotVerifyError, RandomProgramError) as error:
        verdict = Verification(status="cannot-verify", message=error.message, hint=error.hint)
    except CheckFailedError as error:
        verdict = Verification(status="fails", message=error.message, hint=error.hint)
    return replace(verdict, seconds=time.perf_counter() - start)
