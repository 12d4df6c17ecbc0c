"""What the commands share when they run: outputs that are published together, progress, printing."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, TextIO

from vkfuse.commands.arguments import Bounds, Chosen, Printing
from vkfuse.errors import InputError, VkfuseError
from vkfuse.gates import Gates
from vkfuse.limits import Limits, enforce
from vkfuse.options import Options, Progress
from vkfuse.output import Publication, reported, write
from vkfuse.program.methods import METHOD
from vkfuse.report.format import SUFFIXES, Format
from vkfuse.runtime.versions import default_runtime
from vkfuse.settings import NOTHING, find_settings

if TYPE_CHECKING:
    from types import ModuleType

    from rich.console import Console

    from vkfuse.program.check import Checked
    from vkfuse.pte.model import PteFile
    from vkfuse.report.model import Report, Reports


Reads = Sequence[tuple[str, Path]]  # what the user calls each file that a run reads, and its path


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """What a run publishes: the model and other files through `publication`, and the reports."""

    publication: Publication
    printing: Printing
    reports: Sequence[tuple[Path, Path]]

    def prints(self) -> None:
        """Say that the report goes to stdout, unless nothing is printed. OutputError."""
        if not self.printing.quiet:
            self.publication.prints()

    def fill(self, text: Callable[[Format], str]) -> None:
        """Write to each path what `text` says in the format of its suffix. OutputError."""
        for path, temporary in self.reports:
            fmt = SUFFIXES.get(path.suffix, Format.TEXT)
            write(temporary, partial(_put, text(fmt)), path)

    def show(self, report: "Report | Reports", stream: TextIO | None = None) -> None:
        """Write the report to each path, its format by the suffix, and print it. OutputError."""
        self.fill(partial(_rendered, report, self.printing.every))
        if self.printing.github_summary:
            _append(report, _github_summary(), every=self.printing.every)
        if not self.printing.quiet:
            print_report(report, self.printing, stream or sys.stdout)


def settled(asked: Chosen, command: str, runtime: str | None, *, no_config: bool) -> tuple[Gates, str]:
    """The gates and the runtime of a command: its options, else what a file of settings says. VkfuseError."""
    found = NOTHING if no_config else find_settings(Path.cwd(), command)
    gates, version = found.overruled(asked, runtime)
    return gates, default_runtime() if version is None else version


@contextlib.contextmanager
def outputs_of(reads: Reads, printing: Printing, bounds: Bounds, *others: Path) -> Iterator[Outputs]:
    """The outputs of a run within `bounds`, refused before any work where one is another file of it, published at the end.

    `others` are outputs that the command claims itself.
    """
    reports = printing.report or []
    lift = enforce(Limits(memory=bounds.max_memory, seconds=bounds.timeout), [*others, *reports])
    with Publication(before_renames=lift) as publication:
        for role, path in reads:
            publication.reads(role, path)
        temporaries = [(path, publication.file(path, "--report")) for path in reports]
        yield Outputs(publication=publication, printing=printing, reports=temporaries)


def programs_read(sources: Mapping[str, Path], baseline: Path | None = None) -> Reads:
    """The programs, and the baseline where it is a file."""
    of_baseline = [] if baseline is None else [("--baseline", baseline)]
    return [*(("MODEL.pt2", path) for path in sources.values()), *of_baseline]


def file_given(sources: Mapping[str, Path]) -> "PteFile | None":
    """The .pte that a run is to rewrite, told by its first bytes; None for programs. InputError, FormatError."""
    from vkfuse.pte.reader import given_as_pte, read_pte  # noqa: PLC0415 - not for --help

    files = [path for path in sources.values() if given_as_pte(path)]
    if not files:
        return None
    if {*sources} != {METHOD}:
        hint = "give it alone, without a name"
        raise InputError(f"{files[0]} is a .pte, which has methods of its own", hint=hint)
    return read_pte(files[0])


def opened(sources: Mapping[str, Path], options: Options) -> "dict[str, Checked]":
    """Look through the programs, before torch is imported: what is refused is refused at once.

    Only modules of the user's own come first, since programs may call what they register.
    """
    from vkfuse.program.check import open_checked  # noqa: PLC0415 - only where there are programs

    if options.imports:
        _import(options)
    return {
        name: open_checked(path, allow_pickle=options.allow_pickle, max_memory=options.max_memory)
        for name, path in sources.items()
    }


def _import(options: Options) -> None:
    from vkfuse.quiet import quiet  # noqa: PLC0415 - nothing before the first command

    with quiet(verbose=options.verbose):
        from vkfuse.program.imports import import_modules  # noqa: PLC0415 - imports torch

        import_modules(options.imports)


def pipeline() -> "ModuleType":
    """The torch side, whose import takes seconds and is noisy."""
    from vkfuse.quiet import quiet  # noqa: PLC0415 - nothing before the first command

    with quiet():
        from vkfuse import pipeline  # noqa: PLC0415 - imports torch
    return pipeline


@dataclass(frozen=True, slots=True, kw_only=True)
class Stages:
    """What is told of a run: a stage that begins, and the seconds that all of it should take, where that is known."""

    begin: Progress
    expect: Callable[[float], None] = lambda _seconds: None

    def __call__(self, stage: str) -> None:
        """Begin a stage."""
        self.begin(stage)


@contextlib.contextmanager
def progress(*, quiet: bool) -> Iterator[Stages]:
    """Stages on stderr: a bar each with its time on a terminal, a line each elsewhere, nothing when quiet."""
    from rich.console import Console  # noqa: PLC0415 - not for --help

    told = Console(file=sys.stderr, quiet=quiet)
    if not told.is_terminal:
        yield Stages(begin=lambda stage: told.print(f"vkfuse: {stage}", highlight=False, soft_wrap=True))
        return
    with _bars(told) as stages:
        yield stages


@contextlib.contextmanager
def _bars(console: "Console") -> Iterator[Stages]:
    """A bar for each stage with the time that it took, full once the next one begins; gone at the end."""
    from rich import markup, progress  # noqa: PLC0415 - not for --help

    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(20),
        progress.TimeElapsedColumn(),
        progress.TextColumn("{task.fields[expected]}"),
    )
    with progress.Progress(*columns, console=console, transient=True) as shown:
        running: list[progress.TaskID] = []

        def begin(stage: str) -> None:
            for bar in running:
                shown.update(bar, total=1, completed=1)
            running[:] = [shown.add_task(markup.escape(stage), total=None, expected="")]

        def expect(seconds: float) -> None:
            shown.add_task("all stages", total=None, expected=f"of about {seconds:.0f} s on a free core")

        yield Stages(begin=begin, expect=expect)


def print_report(report: "Report | Reports", printing: Printing, stream: TextIO) -> None:
    """Print a report."""
    from vkfuse.report.render import render  # noqa: PLC0415 - not for --help

    render(report, printing.fmt, console(stream), every=printing.every)
    stream.flush()


def console(stream: TextIO) -> "Console":
    """A console on `stream`, as wide as the terminal, or as a log."""
    from rich.console import Console  # noqa: PLC0415 - not for --help

    from vkfuse.report.text import log  # noqa: PLC0415

    made = Console(file=stream)
    return made if made.is_terminal or "COLUMNS" in os.environ else log(stream)


def _github_summary() -> Path:
    """The file that a job of GitHub's shows. VkfuseError where there is none."""
    path = os.environ.get("GITHUB_STEP_SUMMARY", "")
    if not path:
        raise VkfuseError(
            "--github-summary: GITHUB_STEP_SUMMARY is not set",
            hint="a job of GitHub's sets it; elsewhere use --report report.md",
        )
    return Path(path)


def _append(report: "Report | Reports", path: Path, *, every: bool) -> None:
    with reported(path), path.open("ab") as stream:
        _put(_rendered(report, every, Format.MARKDOWN), stream)
        stream.write(b"\n")


def _rendered(report: "Report | Reports", every: bool, fmt: Format) -> str:
    from vkfuse.report.render import rendered  # noqa: PLC0415 - not for --help

    return rendered(report, fmt, every=every)


def _put(text: str, stream: IO[bytes]) -> None:
    stream.write(text.encode(errors="backslashreplace"))
