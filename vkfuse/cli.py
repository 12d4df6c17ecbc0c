"""The command line: parse, call one function, render, exit code. Heavy packages load inside the commands."""

import contextlib
import math
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, NoReturn, TextIO, TypeVar

import typer
from rich.console import Console

from vkfuse import __version__, signals, streams
from vkfuse.commands import shader
from vkfuse.commands.formats import Format as TextOrJson
from vkfuse.errors import ExitCode, VkfuseError, remedy
from vkfuse.limits import Limits, enforce, parse_seconds, parse_size
from vkfuse.options import (
    DEFAULT_LAYOUT,
    BaselineChoice,
    LookupLayout,
    Options,
    Progress,
    Storage,
    VulkanOptions,
)
from vkfuse.output import Publication, reported, write
from vkfuse.program.methods import parse_methods
from vkfuse.report.model import Report
from vkfuse.report.render import SUFFIXES, Format, render, rendered
from vkfuse.report.text import visible
from vkfuse.runtime.versions import DEFAULT as DEFAULT_RUNTIME
from vkfuse.signals import Interrupted
from vkfuse.streams import ReaderGoneError

if TYPE_CHECKING:
    from types import ModuleType

    from vkfuse.program.check import Checked

_Parsed = TypeVar("_Parsed", int, float)
app = typer.Typer(
    name="vkfuse",
    help="Turn torchao-quantized PyTorch programs into small, loadable, proven ExecuTorch Vulkan files.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


app.add_typer(shader.app, name="shader")

ModelsArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="MODEL.pt2",
        help="Exported program, or NAME=MODEL.pt2 for each of several methods; - reads stdin, ./A=B.pt2 is a path.",
        show_default=False,
    ),
]
RuntimeOption = Annotated[str, typer.Option("--runtime", help="ExecuTorch version that will load the file.")]
FormatOption = Annotated[Format, typer.Option("--format", help="How to print the report.")]
ReportOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--report",
        metavar="PATH",
        help="Also write the report here, as often as wanted: .json, .md, .csv, .tsv or text.",
    ),
]
PickleOption = Annotated[
    bool,
    typer.Option(
        "--allow-pickle", help="Load pickles with names off the allowlist. Only for files that you trust."
    ),
]
VerboseOption = Annotated[
    bool, typer.Option("--verbose", "-v", help="Show the logs and warnings of torch and ExecuTorch.")
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]


def _parsed_by(parse: Callable[[str], _Parsed]) -> Callable[[str], _Parsed]:
    """Turn the parser's ValueError into an error of usage."""

    def parser(text: str) -> _Parsed:
        try:
            return parse(text)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error

    return parser


def _tolerance(text: str) -> float:
    """A number that differences can be held against. ValueError."""
    tolerance = float(text)
    if not 0 <= tolerance < math.inf:
        raise ValueError(f"{text!r} is no tolerance: write a number from 0 on")
    return tolerance


def _tolerance_option(text: str) -> Any:
    return typer.Option(metavar="NUMBER", parser=_parsed_by(_tolerance), help=text)


MemoryOption = Annotated[
    int | None,
    typer.Option(
        "--max-memory",
        metavar="SIZE",
        parser=_parsed_by(parse_size),
        help="End the run with exit code 2 when it takes more: 4GiB, 1.5GB, bytes. Needs Linux.",
    ),
]
TimeoutOption = Annotated[
    float | None,
    typer.Option(
        "--timeout",
        metavar="TIME",
        parser=_parsed_by(parse_seconds),
        help="End the run with exit code 2 when it takes longer: 90, 90s, 5m, 1.5h.",
    ),
]


@app.callback(invoke_without_command=True)
def _root(
    *,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)
    ] = False,
) -> None:
    if version:
        typer.echo(f"vkfuse {__version__}")
        raise typer.Exit


@app.command()
def optimize(
    models: ModelsArgument,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="MODEL.pte",
            help="File to write, - is stdout. A temporary that a killed run left beside it is removed.",
        ),
    ],
    *,
    runtime: RuntimeOption = DEFAULT_RUNTIME,
    baseline: Annotated[
        str,
        typer.Option(
            metavar="folded|stock|none|FILE.pte",
            help="What 'before' is: tables folded to float, what the installed ExecuTorch makes, or a file.",
        ),
    ] = "folded",
    fp16: Annotated[
        bool, typer.Option("--fp16", help="Compute in half precision on the GPU. Lossy.")
    ] = False,
    storage: Annotated[Storage, typer.Option(help="How delegates store tensors.")] = Storage.TEXTURE,
    verify: Annotated[bool, typer.Option(help="Run the written file's bytes against the program.")] = True,
    small_textures: Annotated[
        bool, typer.Option("--small-textures", help="Keep to 2048 texels a side, for any GPU.")
    ] = False,
    lookup_layout: Annotated[
        LookupLayout,
        typer.Option(
            help="How 4-bit tables that no linear reads are stored: flat is faster, but not for every GPU."
        ),
    ] = DEFAULT_LAYOUT,
    embed_shader: Annotated[
        bool,
        typer.Option(
            "--embed-shader", help="Store the lookups' shaders in the file; stock runtimes ignore them."
        ),
    ] = False,
    report: ReportOption = None,
    fmt: FormatOption = Format.TEXT,
    allow_pickle: PickleOption = False,
    verbose: VerboseOption = False,
    quiet: QuietOption = False,
    max_memory: MemoryOption = None,
    timeout: TimeoutOption = None,
) -> None:
    """Turn MODEL.pt2 into a loadable Vulkan .pte and report what changed; several programs become its methods."""
    sources = parse_methods(models)
    options = Options(
        runtime=runtime,
        baseline=_baseline(baseline),
        vulkan=VulkanOptions(
            fp16=fp16,
            storage=storage,
            small_textures=small_textures,
            lookup_layout=lookup_layout,
            embed_shader=embed_shader,
        ),
        verify=verify,
        allow_pickle=allow_pickle,
        verbose=verbose,
        max_memory=max_memory,
    )
    reports = report or []
    lift = enforce(Limits(memory=max_memory, seconds=timeout), [output, *reports])
    with (
        _outputs(_reads(sources, options.baseline), reports, lift) as outputs,
        _progress(quiet=quiet) as stage,
    ):
        temporary, to_stdout = outputs.publication.file(output, "-o"), str(output) == "-"
        if not quiet and not to_stdout:
            outputs.publication.prints()
        programs = _opened(sources, options)
        result = _pipeline().optimize(programs, output, options, progress=stage, into=temporary)
        outputs.fill(result.report)
        if not quiet:
            _print(result.report, fmt, sys.stderr if to_stdout else sys.stdout)


@app.command()
def inspect(
    models: ModelsArgument,
    *,
    runtime: RuntimeOption = DEFAULT_RUNTIME,
    report: ReportOption = None,
    fmt: FormatOption = Format.TEXT,
    allow_pickle: PickleOption = False,
    verbose: VerboseOption = False,
    quiet: QuietOption = False,
    max_memory: MemoryOption = None,
    timeout: TimeoutOption = None,
) -> None:
    """Show each quantized table of MODEL.pt2, its verdict and what it would take, without lowering."""
    sources = parse_methods(models)
    options = Options(runtime=runtime, allow_pickle=allow_pickle, verbose=verbose, max_memory=max_memory)
    reports = report or []
    lift = enforce(Limits(memory=max_memory, seconds=timeout), reports)
    with _outputs(_reads(sources), reports, lift) as outputs, _progress(quiet=quiet) as stage:
        if not quiet:
            outputs.publication.prints()
        programs = _opened(sources, options)
        result = _pipeline().inspect(programs, options, progress=stage)
        outputs.fill(result.report)
        if not quiet:
            _print(result.report, fmt, sys.stdout)


@app.command("report")
def report_command(
    new: Annotated[
        Path, typer.Argument(metavar="NEW.pte", help="File to describe; - reads stdin.", show_default=False)
    ],
    base: Annotated[
        Path | None, typer.Argument(metavar="[BASE.pte]", help="File to compare with.", show_default=False)
    ] = None,
    *,
    runtime: RuntimeOption = DEFAULT_RUNTIME,
    report: ReportOption = None,
    fmt: FormatOption = Format.TEXT,
    quiet: QuietOption = False,
    max_memory: MemoryOption = None,
    timeout: TimeoutOption = None,
) -> None:
    """Describe NEW.pte, and what changed against BASE.pte. Needs neither torch nor ExecuTorch."""
    from vkfuse.commands.report import report_files  # noqa: PLC0415 - the command's own module

    reports = report or []
    lift = enforce(Limits(memory=max_memory, seconds=timeout), reports)
    reads = [("NEW.pte", new), *([] if base is None else [("BASE.pte", base)])]
    with _outputs(reads, reports, lift) as outputs:
        if not quiet:
            outputs.publication.prints()
        made = report_files(new, base, runtime)
        outputs.fill(made)
        if not quiet:
            _print(made, fmt, sys.stdout)


@app.command()
def verify(
    model: Annotated[Path, typer.Argument(metavar="MODEL.pte", help="File to run.", show_default=False)],
    against: Annotated[
        Path, typer.Option("--against", metavar="MODEL.pt2", help="Program that it should compute.")
    ],
    *,
    inputs: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Inputs in place of the stored example: .pt or .npz.")
    ] = None,
    ptd: Annotated[
        list[Path] | None, typer.Option("--ptd", metavar="FILE", help="External data of the file.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=0, help="How many random inputs to try.")] = 3,
    atol: Annotated[float | None, _tolerance_option("Absolute tolerance, in place of the dtype's.")] = None,
    rtol: Annotated[float | None, _tolerance_option("Relative tolerance, in place of the dtype's.")] = None,
    method: Annotated[str, typer.Option(help="Method of the file.")] = "forward",
    device: Annotated[
        bool, typer.Option("--device", help="Also run the lookups' shader on a Vulkan driver.")
    ] = False,
    runtime: RuntimeOption = DEFAULT_RUNTIME,
    fmt: Annotated[TextOrJson, typer.Option("--format", help="How to print the verdict.")] = TextOrJson.TEXT,
    allow_pickle: PickleOption = False,
    verbose: VerboseOption = False,
    max_memory: MemoryOption = None,
    timeout: TimeoutOption = None,
) -> None:
    """Run MODEL.pte's own bytes and say whether it computes what MODEL.pt2 does."""
    lift = enforce(Limits(memory=max_memory, seconds=timeout), [])
    reads = [("MODEL.pte", model), ("--against", against), *(("--ptd", path) for path in ptd or ())]
    reads += [] if inputs is None else [("--inputs", inputs)]
    with _outputs(reads, [], lift) as outputs, _progress(quiet=False) as progress:
        outputs.publication.prints()
        bounds = Options(allow_pickle=allow_pickle, max_memory=max_memory)
        program = _opened({"--against": against}, bounds)["--against"]
        progress("loading")
        _pipeline()
        from vkfuse.commands import verify as command  # noqa: PLC0415 - imports torch
        from vkfuse.verify.compare import Tolerance  # noqa: PLC0415 - imports torch
        from vkfuse.verify.verify import VerifyOptions  # noqa: PLC0415 - imports torch

        verification = command.verify(
            model,
            program,
            inputs=inputs,
            external=tuple(ptd or ()),
            options=VerifyOptions(
                method=method,
                runtime=runtime,
                seeds=seeds,
                tolerance=Tolerance(atol=atol, rtol=rtol),
                device=device,
            ),
            max_memory=max_memory,
            verbose=verbose,
        )
        command.render(verification, fmt, _console(sys.stdout))
        sys.stdout.flush()
    if not verification.ok:
        raise typer.Exit(ExitCode.CHECK_FAILED)


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="Where to write model.pt2 and model.pte.")] = Path("demo"),
    *,
    quiet: QuietOption = False,
) -> None:
    """Write a realistic quantized decoder as model.pt2 and optimize it."""
    program, model = folder / "model.pt2", folder / "model.pte"
    with reported(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with _outputs([], []) as outputs, _progress(quiet=quiet) as stage:
        temporaries = [outputs.publication.file(path) for path in (program, model)]
        if not quiet:
            outputs.publication.prints()
        _pipeline()
        from vkfuse.commands.demo import make_demo  # noqa: PLC0415 - imports torch

        report = make_demo(program, model, *temporaries, progress=stage)
        if not quiet:
            _print(report, Format.TEXT, sys.stdout)


def _opened(sources: Mapping[str, Path], options: Options) -> "dict[str, Checked]":
    """Look through the programs, before torch is imported: what is refused is refused at once."""
    from vkfuse.program.check import open_checked  # noqa: PLC0415 - only where there are programs

    return {
        name: open_checked(path, allow_pickle=options.allow_pickle, max_memory=options.max_memory)
        for name, path in sources.items()
    }


def _pipeline() -> "ModuleType":
    """The torch side, whose import takes seconds and is noisy."""
    from vkfuse.lower.quiet import quiet  # noqa: PLC0415 - nothing before the first command

    with quiet():
        from vkfuse import pipeline  # noqa: PLC0415 - imports torch
    return pipeline


def _baseline(text: str) -> BaselineChoice | Path:
    return BaselineChoice(text) if text in set(BaselineChoice) else Path(text)


@contextlib.contextmanager
def _progress(*, quiet: bool) -> Iterator[Progress]:
    """Stages on stderr: a spinner on a terminal, a line each elsewhere, nothing when quiet."""
    console = Console(file=sys.stderr, quiet=quiet)
    if not console.is_terminal:
        yield lambda stage: console.print(f"vkfuse: {stage}", highlight=False, soft_wrap=True)
        return
    with console.status("starting") as status:
        yield status.update


_Reads = Sequence[tuple[str, Path]]  # what the user calls each file that a run reads, and its path


def _reads(sources: Mapping[str, Path], baseline: BaselineChoice | Path = BaselineChoice.NONE) -> _Reads:
    """The programs, and the baseline where it is a file."""
    of_baseline = [] if isinstance(baseline, BaselineChoice) else [("--baseline", baseline)]
    return [*(("MODEL.pt2", path) for path in sources.values()), *of_baseline]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Outputs:
    """What a run publishes: the model and other files through `publication`, and the reports."""

    publication: Publication
    reports: Sequence[tuple[Path, Path]]

    def fill(self, report: Report) -> None:
        """Write the report to each path, its format by the suffix. OutputError."""
        for path, temporary in self.reports:
            text = rendered(report, SUFFIXES.get(path.suffix, Format.TEXT)).encode(errors="backslashreplace")
            write(temporary, partial(_put, text), path)


@contextlib.contextmanager
def _outputs(
    reads: _Reads, reports: Sequence[Path], lift: Callable[[], object] = lambda: None
) -> Iterator[_Outputs]:
    """The outputs of a run, refused before any work where one is another file of it, published together at the end."""
    with Publication(before_renames=lift) as publication:
        for role, path in reads:
            publication.reads(role, path)
        temporaries = [(path, publication.file(path, "--report")) for path in reports]
        yield _Outputs(publication=publication, reports=temporaries)


def _put(data: bytes, stream: IO[bytes]) -> None:
    stream.write(data)


def _print(report: Report, fmt: Format, stream: TextIO) -> None:
    render(report, fmt, _console(stream))
    stream.flush()


LOG_WIDTH = 110  # columns where there is no terminal to ask


def _console(stream: TextIO) -> Console:
    """A console on `stream`, as wide as the terminal, or as a log."""
    console = Console(file=stream)
    return (
        console if console.is_terminal or "COLUMNS" in os.environ else Console(file=stream, width=LOG_WIDTH)
    )


def main() -> NoReturn:
    """Entry point: every error ends in one line, a remedy and an exit code."""
    streams.prepare()
    code = _code()
    signals.ignore()
    sys.exit(code)


def _code() -> int:
    """Run the command, then write out what stdout still holds. Gives the exit code."""
    code = _guarded(_command)
    flushed = _guarded(lambda: sys.stdout.flush() or ExitCode.OK)
    return code or flushed


def _command() -> int:
    signals.listen()
    try:
        app()
    except SystemExit as left:
        return left.code if isinstance(left.code, int) else ExitCode.OK
    return ExitCode.OK


def _guarded(run: Callable[[], int]) -> int:
    """The exit code of `run`, whatever it raises: the one place where errors become messages."""
    try:
        return run()
    except (BrokenPipeError, ReaderGoneError):
        return ExitCode.BROKEN_PIPE
    except (Exception, Interrupted) as error:  # noqa: BLE001 - a user never sees a traceback unless asked for
        return _told(error)


def _told(error: BaseException) -> ExitCode:
    """Say what happened and what to do, and give the exit code."""
    code = ExitCode.USAGE
    match error:
        case VkfuseError():
            message, hint, code = error.message, error.hint, error.exit_code
        case Interrupted():
            message, hint, code = "interrupted", "nothing was written", ExitCode.INTERRUPTED
        case ModuleNotFoundError():
            message, hint = f"this command needs the package {error.name!r}", "pip install vkfuse"
        case OSError():
            named = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
            message, hint = f"{named}{error.strerror or error}", remedy(error)
        case UnicodeError():
            message, hint = f"text in another encoding: {error}", "set PYTHONUTF8=1"
        case MemoryError():
            message, hint = "out of memory", "free some, or allow the process more"
        case _:
            if {"-v", "--verbose"} & set(sys.argv):
                traceback.print_exception(error)
            text = next(iter(str(error).strip().splitlines()), "")
            message, code = f"{type(error).__name__}: {text[:300]}", ExitCode.FAULT
            hint = "a fault in vkfuse: run again with -v and report the traceback"
    lines = [f"vkfuse: error: {message}"] + ([f"  hint: {hint}"] if hint else [])
    sys.stderr.write(visible("\n".join(lines)) + "\n")
    return code
