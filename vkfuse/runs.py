"""Runs that need not be done again: the same input bytes, options and versions gave a file and its report before.

Imports neither torch nor ExecuTorch. What such a run costs is a hash of the input, and reading the file that it writes.
"""

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from vkfuse.entries import Entries, MissedError, damaged, made_with
from vkfuse.errors import OutputError
from vkfuse.mapping import hashed, map_file
from vkfuse.options import Options, Progress
from vkfuse.output import reported
from vkfuse.provenance import provenance
from vkfuse.pte import read_pte
from vkfuse.report.build import measure
from vkfuse.report.checks import require_passed
from vkfuse.report.cost import Meter
from vkfuse.report.model import InputFile, Report, Result
from vkfuse.report.stored import restored, stored
from vkfuse.report.whole import inputs_of, report_of

CACHED: Final = "cache: "  # what notes of a report that are about a cache begin with
_ASIDE: Final = frozenset({"cache", "verbose"})  # options that change nothing in file and report


def repeatable(options: Options) -> bool:
    """Whether options say all that a run depends on: no code of the user's own, and no file before to be written."""
    own = options.imports or options.allow_pickle
    return options.cache is not None and not own and options.keep_baseline is None


def repeated(
    sources: Mapping[str, Path],
    target: Path,
    options: Options,
    *,
    into: Path,
    progress: Progress = lambda _stage: None,
    command: Sequence[str] = (),
) -> Result:
    """Write the file of an earlier run to `into`, to be found at `target`, and return its report as of this run.

    The written file is hashed and judged again. Raises MissedError where there was no such run, or its entry is none;
    InputError for programs that cannot be read, OutputError for the folder, GatesFailedError.
    """
    if options.cache is None or not repeatable(options) or Path("-") in sources.values():
        raise MissedError("the options do not say all that the run depends on")
    entries, meter = Entries(options.cache), Meter()
    entries.made()
    progress = meter.watching(progress)
    progress("looking in the cache")
    inputs = {name: _input(path) for name, path in sources.items()}
    key = _key({name: of.sha256 for name, of in inputs.items()}, options)
    entry = entries.read(key)
    with damaged():
        before, date = restored(Report, entry["report"]), str(entry["date"])
        found = entries.file(before.output and before.output.sha256)
    with reported(target):
        shutil.copyfile(found, into)
    report = _judged(before, into, target, options)
    rows = tuple(replace(row, input=inputs.get(row.name)) for row in report.methods)
    report = replace(
        report,
        input=inputs_of(rows),
        methods=rows,
        provenance=provenance(options, command),
        cost=meter.cost(),
        notes=(*(n for n in report.notes if not n.startswith(CACHED)), _note(key, date, options)),
    )
    require_passed(report)
    return Result(report=report, output=target)


def kept(report: Report, file: Path, options: Options) -> Report:
    """Store a run whose checks passed, or say in its report why not; none of which the same could not be told again."""
    inputs = {row.name: "" if row.input is None else row.input.sha256 for row in report.methods}
    if options.cache is None or not repeatable(options) or not all(inputs.values()) or report.output is None:
        return report
    of = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "report": stored(report)}
    try:
        Entries(options.cache).keep(_key(inputs, options), of, file, report.output.sha256)
    except OutputError as error:
        return replace(report, notes=(*report.notes, f"{CACHED}this run is not kept: {error.message}"))
    return report


def _key(inputs: Mapping[str, str], options: Options) -> str:
    words = {name: of for name, of in provenance(options, ()).options.items() if name not in _ASIDE}
    before = "" if options.given_baseline is None else _input(options.given_baseline).sha256
    said = ("run", *made_with(options), sorted(words.items()), [*inputs.items()], before)
    return hashlib.sha256(repr(said).encode()).hexdigest()


def _input(path: Path) -> InputFile:
    data = map_file(path)
    return InputFile(path=str(path), bytes=len(data), sha256=hashed(data).hex())


def _judged(before: Report, into: Path, target: Path, options: Options) -> Report:
    """Return the report of an earlier run where it says of the file what its bytes do. MissedError."""
    with damaged():
        pte = read_pte(into)
        now = report_of(measure(pte, options.runtime), None, options.runtime, path=str(target))
        parts = ("runtime", "loadable", "ledger", "memory", "shaders")
        same = all(getattr(before, part) == getattr(now, part) for part in parts)
        if before.output is None or now.output is None or now.loadable is None:
            raise ValueError("no file")
        if not same or not now.loadable.ok or replace(before.output, path=now.output.path) != now.output:
            raise MissedError("the entry's file is another, or damaged")
    return replace(before, output=now.output)


def _note(key: str, date: str, options: Options) -> str:
    shown = "proofs and check against the program" if options.verify else "proofs (nothing was verified)"
    return (
        f"{CACHED}neither loaded nor lowered in this run: a run of {date} with the same input, options and versions (entry "
        f"{key[:12]}) wrote this file, whose {shown} are that run's; its bytes were hashed and judged again"
    )
