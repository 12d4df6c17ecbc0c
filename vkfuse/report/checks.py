"""Whether a file is what the user asks of it: a report with its checks, and the error where one failed."""

import fnmatch
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import chain
from typing import Final

from vkfuse.errors import CheckFailedError, InputError
from vkfuse.gates import Gates, Growth, Requirement
from vkfuse.measure.ledger import parts
from vkfuse.quantities import counted, mebibytes, some
from vkfuse.report.build import Measured
from vkfuse.report.model import Check, Diff, Report, Reports
from vkfuse.report.summary import told
from vkfuse.runtime.codes import Code

_UNKNOWN: Final = "not checked"


class GatesFailedError(CheckFailedError):
    """A file is not what was asked of it: `report` says what it is."""

    def __init__(self, report: Report) -> None:
        failed = [check for check in report.checks if not check.passed]
        lines = "".join(f"\n  {told(check)}" for check in failed)
        super().__init__(f"{len(failed)} of {counted(len(report.checks), 'check')} failed{lines}")
        self.report = report


def checked(report: Report, gates: Gates, after: Measured, before: Measured | None) -> Report:
    """Return the report of `after` with a check for each gate; `before` is the file that it is compared with."""
    made = (
        *_sizes(gates, after, before),
        *(_REQUIREMENTS[requirement](report) for requirement in gates.require),
        *(_forbidden(glob, report) for glob in gates.forbid_cpu_op),
        *((_exact(report),) if gates.exact else ()),
        *((_same(report),) if gates.exit_code else ()),
    )
    return replace(report, checks=(*report.checks, *made))


def passed(report: Report) -> bool:
    """Whether no check failed."""
    return all(check.passed for check in report.checks)


def require_read(of: Reports) -> None:
    """Raise InputError where one of several files could not be read."""
    if of.unread:
        total = counted(len(of.reports) + len(of.unread), "file")
        errors = "".join(f"\n  {row.error}" for row in of.unread)
        raise InputError(f"{len(of.unread)} of {total} could not be read{errors}", hint=of.unread[0].hint)


def require_passed(report: Report | Reports) -> None:
    """Raise GatesFailedError where a check of the report failed, CheckFailedError where one of several did.

    InputError where one of several could not be read.
    """
    if isinstance(report, Report):
        if not passed(report):
            raise GatesFailedError(report)
        return
    require_read(report)
    checks = [(of.output.path if of.output else "", check) for of in report.reports for check in of.checks]
    failed = [f"\n  {path}: {told(check)}" for path, check in checks if not check.passed]
    if failed:
        raise CheckFailedError(f"{len(failed)} of {counted(len(checks), 'check')} failed{''.join(failed)}")


def _sizes(gates: Gates, after: Measured, before: Measured | None) -> Iterator[Check]:
    """Yield the checks of sizes, and of growth since `before`."""
    size = after.pte.size
    if gates.max_size is not None:
        yield Check(
            name="max-size", passed=size <= gates.max_size, value=size, limit=gates.max_size, unit="bytes"
        )
    if gates.max_growth is not None:
        was = None if before is None else before.pte.size
        yield _growth("max-growth", was, size, gates.max_growth)
    for label, limit in gates.max_growth_of.items():
        name = f"max-growth-of {label}"
        ours, theirs = (None if side is None else _size_of(side, label) for side in (after, before))
        if ours is None and theirs is None:
            yield _compared(name, None, limit, "no kind of bytes, label or table is called so")
        else:
            yield _growth(name, None if before is None else theirs or 0, ours or 0, limit)


def _growth(name: str, was: int | None, size: int, limit: Growth) -> Check:
    """Return the check of what grew from `was` bytes, None where there is no file before; from nothing it is infinite."""
    if was is None:
        return _compared(name, None, limit, "there is no file before")
    delta = size - was
    value: float = (
        delta if limit.unit == "bytes" else 100 * delta / was if was else 0.0 if not delta else float("inf")
    )
    return _compared(name, value, limit, f"{mebibytes(was)} -> {mebibytes(size)}")


def _compared(name: str, value: float | None, limit: Growth, detail: str) -> Check:
    """Return the check of a growth, None where it is not known."""
    return Check(
        name=name,
        passed=value is not None and value <= limit.amount,
        value=_UNKNOWN if value is None else value,
        limit=limit.amount,
        unit=limit.unit,
        detail=detail,
    )


def _size_of(side: Measured, label: str) -> int | None:
    """Return the bytes of a kind, of the labels, or of the tables that a pattern names; None where it names nothing."""
    pattern = glob(label)
    of_bytes = [(part.kind, part.label.merged, part.at.size) for part in parts(side.pte)]
    for sizes in (
        [size for kind, _, size in of_bytes if kind == label],
        [size for _, name, size in of_bytes if pattern(name)],
        [row.bytes_after for row in side.tables if pattern(row.name)],
    ):
        if sizes:
            return sum(sizes)
    return None


def glob(pattern: str) -> Callable[[str], object]:
    """Return what matches `*` and `?`, and all else as it is: labels have brackets."""
    return re.compile(fnmatch.translate(pattern.replace("[", "[[]"))).match


def _require(requirement: Requirement, failing: int | None, detail: str = "") -> Check:
    """Return the check that nothing is `failing`, None where that is not known."""
    return Check(
        name=f"require {requirement}",
        passed=failing == 0,
        value=_UNKNOWN if failing is None else failing,
        limit=0,
        detail=detail,
    )


def _fused(report: Report) -> Check:
    """Every quantized table is read by a fused operator, and there is one."""
    tables = [row for row in report.tables if row.rung != "untouched" or "dequantize" in row.consumers]
    left = [row.name for row in tables if row.rung != "q4"]
    if not tables:
        return _require(Requirement.FUSED, None, "there is no quantized table")
    return _require(Requirement.FUSED, len(left), f"not fused: {some(left)}" if left else "")


def _delegated(report: Report) -> Check:
    """No operator runs on the CPU, the runtime's own primitives aside."""
    cpu = report.delegation.cpu if report.delegation is not None else {}
    left = {name: op.count for name, op in cpu.items() if op.reason != Code.RUNTIME_PRIMITIVE}
    return _require(Requirement.DELEGATED, sum(left.values()), f"on the CPU: {some(left)}" if left else "")


def _loadable(report: Report) -> Check:
    """The runtime loads the file, and computes what it says."""
    if report.loadable is None:
        return _require(Requirement.LOADABLE, None)
    faults = [found for found in report.loadable.findings if found.effect != "note"]
    detail = f"{report.runtime}: {some(dict.fromkeys(found.name for found in faults))}" if faults else ""
    return _require(Requirement.LOADABLE, len(faults), detail)


def _verified(report: Report) -> Check:
    """The file's bytes were run, all of them, and computed what the program does."""
    found = report.verify
    if found is None or not found.ran or found.ok is None:
        return _require(Requirement.VERIFIED, None, "; ".join(found.skipped) if found is not None else "")
    return _require(Requirement.VERIFIED, int(not found.ok))


_REQUIREMENTS: Final[Mapping[Requirement, Callable[[Report], Check]]] = {
    Requirement.FUSED: _fused,
    Requirement.DELEGATED: _delegated,
    Requirement.LOADABLE: _loadable,
    Requirement.VERIFIED: _verified,
}


def _forbidden(pattern: str, report: Report) -> Check:
    """No kernel of the CPU is called as the pattern says, `aten::add.out` or `aten.add.out`."""
    matches = glob(pattern)
    cpu = report.delegation.cpu if report.delegation is not None else {}
    found = {name: op.count for name, op in cpu.items() if matches(name) or matches(name.replace("::", "."))}
    calls = sum(found.values())
    return Check(
        name=f"forbid-cpu-op {pattern}",
        passed=not calls,
        value=calls,
        limit=0,
        detail=some(found),
    )


def _exact(report: Report) -> Check:
    """Every table of the file is the program's, bit for bit."""
    left = [row.name for row in report.tables if row.proof is None or row.proof.kind != "exact"]
    detail = f"not proved exact: {some(left)}" if left else ""
    return Check(name="exact", passed=not left, value=len(left), limit=0, detail=detail)


def _same(report: Report) -> Check:
    """The file is the one before."""
    same = report.diff is not None and report.diff.identical
    return Check(
        name="exit-code",
        passed=same,
        value="identical" if same else "differs",
        limit="identical",
        detail="" if same or report.diff is None else f"first: {_first(report.diff)}",
    )


def _first(diff: Diff) -> str:
    """Name what differs, the most telling first: a table, a label of other content, one of another size."""
    tables = (row.name for row in diff.tables)
    contents = (f"{row.label}, {row.differing:,} of {row.bytes:,} bytes" for row in diff.contents)
    sizes = (f"{row.label}, {row.before or 0:,} -> {row.after or 0:,} bytes" for row in diff.ledger)
    return next(chain(tables, contents, sizes), "the order of what is in it")
