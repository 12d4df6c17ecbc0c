"""`vkfuse optimize`: what is written, published or compared, around the pipeline."""

import contextlib
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from vkfuse.commands.arguments import Bounds, Printing
from vkfuse.commands.running import (
    Stages,
    file_given,
    opened,
    outputs_of,
    pipeline,
    programs_read,
    progress,
)
from vkfuse.entries import MissedError
from vkfuse.errors import VkfuseError
from vkfuse.options import BaselineChoice, Options
from vkfuse.output import Into, Publication, write
from vkfuse.program.check import Checked
from vkfuse.report.attestation import dumps
from vkfuse.report.checks import GatesFailedError, passed, require_passed
from vkfuse.report.model import Report, Result
from vkfuse.runs import repeated

_REBUILT = Path("rebuilt")  # what the report calls a file that is only compared


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """The files that a run writes: the model to `output`, unless it is built to `check` a file of an earlier run.

    `baseline` is the word for what they are compared with, or the path of a file, where one was given.
    """

    output: Path | None
    check: Path | None = None
    baseline: str | None = None
    attestation: Path | None = None
    keep_baseline: Path | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """Those that are written."""
        every = (self.output, self.attestation, self.keep_baseline)
        return tuple(path for path in every if path is not None)

    def options(self, options: Options) -> Options:
        """Return the options that the targets ask for. VkfuseError for targets that exclude each other."""
        if (self.output is None) == (self.check is None):
            raise VkfuseError("what to write is not clear", hint="give -o MODEL.pte, or --check MODEL.pte")
        if self.check is None:
            given = options if self.baseline is None else options.changed({"baseline": self.baseline})
            return replace(given, keep_baseline=self.keep_baseline)
        if self.baseline is not None:
            raise VkfuseError("--check compares with the file that it checks", hint="leave out --baseline")
        if self.keep_baseline is not None or self.attestation is not None:
            raise VkfuseError("--check writes no file", hint="leave out --keep-baseline and --attestation")
        if options.cache is not None:
            raise VkfuseError("--check builds all of the file again", hint="leave out --cache")
        gates = replace(options.gates, exit_code=True)
        return replace(options, baseline=self.check, gates=gates)


def optimize(
    sources: Mapping[str, Path], targets: Targets, given: Options, printing: Printing, bounds: Bounds
) -> None:
    """Build the file, write it with what belongs to it, and print the report. Raises what the pipeline does."""
    options = targets.options(given)
    options.check_gates()
    reads = programs_read(sources, options.given_baseline)
    with (
        outputs_of(reads, printing, bounds, *targets.files) as outputs,
        progress(quiet=printing.quiet) as stage,
        _temporaries(targets, outputs.publication) as temporaries,
    ):
        to_stdout = str(targets.output) == "-"
        if not to_stdout:
            outputs.prints()
        report = _built(sources, targets, options, temporaries, stage)
        for temporary in _withheld(report, temporaries):
            outputs.publication.withhold(temporary)
        outputs.show(report, sys.stderr if to_stdout else sys.stdout)
    require_passed(report)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Temporaries:
    """Where the targets are written until they are published; a model that is only compared never is."""

    model: Path
    published: bool
    attestation: Path | None
    baseline: Path | None


@contextlib.contextmanager
def _temporaries(targets: Targets, publication: Publication) -> Iterator[_Temporaries]:
    """Claim the targets. OutputError."""
    with tempfile.TemporaryDirectory() as folder:
        output = targets.output
        yield _Temporaries(
            model=Path(folder) / "model.pte" if output is None else publication.file(output, "-o"),
            published=output is not None,
            attestation=targets.attestation and publication.file(targets.attestation, "--attestation"),
            baseline=targets.keep_baseline and publication.file(targets.keep_baseline, "--keep-baseline"),
        )


def _built(
    sources: Mapping[str, Path],
    targets: Targets,
    options: Options,
    temporaries: _Temporaries,
    stage: Stages,
) -> Report:
    """Build the model into its temporary, and the attestation of it."""
    target = targets.output or _REBUILT
    into = Into(model=temporaries.model, baseline=temporaries.baseline)
    try:
        result = _result(sources, target, options, into, stage)
    except GatesFailedError as failed:
        unwritten = (f"{target} is not written, since a check failed",) if temporaries.published else ()
        return replace(failed.report, notes=(*failed.report.notes, *unwritten))
    if temporaries.attestation is not None and targets.attestation is not None:
        text = dumps(result.report).encode()
        write(temporaries.attestation, lambda stream: stream.write(text), targets.attestation)
    return result.report


def _result(sources: Mapping[str, Path], target: Path, options: Options, into: Into, stage: Stages) -> Result:
    """Rewrite the file that was given, or lower the programs."""
    file = file_given(sources)
    if file is not None:
        from vkfuse.patch.stages import optimize_file  # noqa: PLC0415 - not for programs

        return optimize_file(file, target, options, progress=stage, into=into, command=sys.argv[1:])
    if options.partial:
        raise VkfuseError("--partial is for a .pte", hint="what is lowered loads, or is not written")
    command = sys.argv[1:]
    with contextlib.suppress(MissedError):
        return repeated(sources, target, options, into=into.model, progress=stage, command=command)
    programs = opened(sources, options)
    expected = seconds_of(programs.values(), options)
    if expected is not None:
        stage.expect(expected)
    run = pipeline().optimize
    made: Result = run(programs, target, options, progress=stage, into=into, command=command)
    return made


def _withheld(report: Report, temporaries: _Temporaries) -> Iterator[Path]:
    """Yield what is not published: a file that failed a check, what is said of it, a baseline that nobody could make."""
    if not passed(report):
        yield from (temporaries.model,) if temporaries.published else ()
        yield from () if temporaries.attestation is None else (temporaries.attestation,)
    if temporaries.baseline is not None and (report.baseline is None or report.baseline.bytes is None):
        yield temporaries.baseline


# Seconds of a free core, fitted to runs without a file before, of MiniLM (342 nodes, 26 MiB), SmolLM2-135M (2,992, 216) and
# Llama-3.2-1B's shape (1,620, 1,692): docs/performance.md. A file before that is lowered too takes lowering once more.
_IMPORTS: Final = 5.0
_NODE: Final = 0.018
_MIB: Final = 0.012


def seconds_of(programs: Iterable[Checked], options: Options) -> float | None:
    """Seconds that programs take; None where nobody knows: a cache, a file before that is lowered too, a trusted .pt2."""
    found = [(of.nodes, of.bytes / (1 << 20)) for of in programs]
    if options.cache is not None or options.baseline is BaselineChoice.STOCK:
        return None
    nodes = [count for count, _ in found if count is not None]
    if len(nodes) < len(found):
        return None
    return _IMPORTS + _NODE * sum(nodes) + _MIB * sum(mib for _, mib in found)
