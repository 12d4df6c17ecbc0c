"""`vkfuse report`: what is in a file, what changed since another, or several files each by itself."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from vkfuse.errors import InputError
from vkfuse.gates import Gates
from vkfuse.pte.ptd import read_ptd
from vkfuse.pte.reader import read_pte
from vkfuse.report.build import Measured, measure, runtimes_of
from vkfuse.report.checks import checked, require_read
from vkfuse.report.model import ExternalFile, Report, Reports, Unread
from vkfuse.report.whole import report_of
from vkfuse.runtime.versions import DEFAULT

_NOTHING_RUNS: Final = "a report runs nothing and has no program: ask vkfuse optimize, or vkfuse verify"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What a report covers beside the file: external data of it, and of the file before; all runtimes; the file's hash."""

    ptd: tuple[Path, ...] = ()
    base_ptd: tuple[Path, ...] = ()
    all_runtimes: bool = False
    hashed: bool = True


_FILE_ALONE: Final = Scope()


def report_files(
    new: Path | str,
    base: Path | str | None = None,
    runtime: str = DEFAULT,
    gates: Gates | None = None,
    scope: Scope = _FILE_ALONE,
) -> Report:
    """Measure `new`, against `base` where it is given, with a check for each of `gates`; `-` is stdin.

    Raises InputError, FormatError, and VkfuseError for gates that a report cannot answer.
    """
    asked = gates or Gates()
    alone = {"before": "give BASE.pte to compare with"} if base is None else {}
    asked.check_possible({"verified": _NOTHING_RUNS, "exact": _NOTHING_RUNS, **alone})
    if base is not None and str(new) == str(base) == "-":
        raise InputError("both files are stdin", hint="give one of them as a path")
    before = None if base is None else _measured(base, _read(scope.base_ptd), runtime)
    return _report(new, before, runtime, asked, scope)


def report_each(
    paths: Sequence[Path], runtime: str = DEFAULT, gates: Gates | None = None, scope: Scope = _FILE_ALONE
) -> Reports:
    """Measure each file by itself, whichever of them can be read. Raises as `report_files` does where none can."""
    asked = gates or Gates()
    alone = "each file stands for itself: give NEW.pte and BASE.pte"
    asked.check_possible({"verified": _NOTHING_RUNS, "exact": _NOTHING_RUNS, "before": alone})
    if sum(str(path) == "-" for path in paths) > 1:
        raise InputError("more than one file is stdin", hint="give the others as paths")
    read = [_report_or_error(path, runtime, asked, scope) for path in paths]
    reports = Reports(
        reports=tuple(each for each in read if isinstance(each, Report)),
        unread=tuple(each for each in read if isinstance(each, Unread)),
    )
    if not reports.reports:
        require_read(reports)
    return reports


def _report_or_error(path: Path, runtime: str, gates: Gates, scope: Scope) -> Report | Unread:
    try:
        return _report(path, None, runtime, gates, scope)
    except InputError as error:
        return Unread(path=str(path), error=error.message, hint=error.hint)


_Data = Mapping[Path, Mapping[str, memoryview]]


def _report(path: Path | str, before: Measured | None, runtime: str, gates: Gates, scope: Scope) -> Report:
    data = _read(scope.ptd)
    after = _measured(path, data, runtime)
    report = replace(
        report_of(after, before, runtime, hashed=scope.hashed),
        external=tuple(_external(of, blobs) for of, blobs in data.items()),
        runtimes=runtimes_of(after.pte) if scope.all_runtimes else (),
    )
    return checked(report, gates, after, before)


def _read(paths: Sequence[Path]) -> _Data:
    return {path: read_ptd(path) for path in paths}


def _measured(path: Path | str, data: _Data, runtime: str) -> Measured:
    external = {key: blob for blobs in data.values() for key, blob in blobs.items()}
    return measure(read_pte(path, external=external), runtime)


def _external(path: Path, blobs: Mapping[str, memoryview]) -> ExternalFile:
    return ExternalFile(path=str(path), bytes=path.stat().st_size, blobs=len(blobs))
