"""The command line: parse, call one function, render, exit code. Heavy packages load inside the commands."""

import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, NoReturn, TextIO

import typer
from rich.console import Console

from vkfuse import __version__
from vkfuse.commands import shader
from vkfuse.commands.formats import Format as TextOrJson
from vkfuse.errors import ExitCode, VkfuseError
from vkfuse.options import (
    DEFAULT_LAYOUT,
    BaselineChoice,
    LookupLayout,
    Options,
    Progress,
    Storage,
    VulkanOptions,
)
from vkfuse.program.methods import parse_methods
from vkfuse.pte.runtimes import DEFAULT as DEFAULT_RUNTIME
from vkfuse.report.model import Report
from vkfuse.report.render import Format, render, rendered

if TYPE_CHECKING:
    from types import ModuleType

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
        "--report", metavar="PATH", help="Also write the report here, as often as wanted: .json, .md or text."
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
        Path, typer.Option("--output", "-o", metavar="MODEL.pte", help="File to write; - writes stdout.")
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
    )
    with _reports(report) as reports, _progress(quiet=quiet) as progress:
        result = _pipeline().optimize(sources, output, options, progress=progress)
        reports(result.report)
    if not quiet:
        _print(result.report, fmt, sys.stderr if str(output) == "-" else sys.stdout)


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
) -> None:
    """Show each quantized table of MODEL.pt2, its verdict and what it would take, without lowering."""
    sources = parse_methods(models)
    options = Options(runtime=runtime, allow_pickle=allow_pickle, verbose=verbose)
    with _reports(report) as reports, _progress(quiet=quiet) as progress:
        result = _pipeline().inspect(sources, options, progress=progress)
        reports(result.report)
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
) -> None:
    """Describe NEW.pte, and what changed against BASE.pte. Needs neither torch nor ExecuTorch."""
    from vkfuse.commands.report import report_files  # noqa: PLC0415 - the command's own module

    with _reports(report) as reports:
        made = report_files(new, base, runtime)
        reports(made)
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
    atol: Annotated[float | None, typer.Option(help="Absolute tolerance, in place of the dtype's.")] = None,
    rtol: Annotated[float | None, typer.Option(help="Relative tolerance, in place of the dtype's.")] = None,
    method: Annotated[str, typer.Option(help="Method of the file.")] = "forward",
    device: Annotated[
        bool, typer.Option("--device", help="Also run the lookups' shader on a Vulkan driver.")
    ] = False,
    runtime: RuntimeOption = DEFAULT_RUNTIME,
    fmt: Annotated[TextOrJson, typer.Option("--format", help="How to print the verdict.")] = TextOrJson.TEXT,
    allow_pickle: PickleOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Run MODEL.pte's own bytes and say whether it computes what MODEL.pt2 does."""
    with _progress(quiet=False) as progress:
        progress("loading")
        _pipeline()
        from vkfuse.commands import verify as command  # noqa: PLC0415 - imports torch
        from vkfuse.verify.compare import Tolerance  # noqa: PLC0415 - imports torch
        from vkfuse.verify.verify import VerifyOptions  # noqa: PLC0415 - imports torch

        verification = command.verify(
            model,
            against,
            inputs=inputs,
            external=tuple(ptd or ()),
            options=VerifyOptions(
                method=method,
                runtime=runtime,
                seeds=seeds,
                tolerance=Tolerance(atol=atol, rtol=rtol),
                device=device,
            ),
            allow_pickle=allow_pickle,
            verbose=verbose,
        )
    with _to_reader():
        command.render(verification, fmt, _console(sys.stdout))
    if not verification.ok:
        raise typer.Exit(ExitCode.CHECK_FAILED)


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="Where to write model.pt2 and model.pte.")] = Path("demo"),
    *,
    quiet: QuietOption = False,
) -> None:
    """Write a realistic quantized decoder as model.pt2 and optimize it."""
    with _progress(quiet=quiet) as progress:
        pipeline = _pipeline()
        from vkfuse.demo import write_demo  # noqa: PLC0415 - imports torch

        folder.mkdir(parents=True, exist_ok=True)
        progress(f"writing {folder / 'model.pt2'}")
        write_demo(folder / "model.pt2")
        result = pipeline.optimize(folder / "model.pt2", folder / "model.pte", progress=progress)
    if not quiet:
        _print(result.report, Format.TEXT, sys.stdout)


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


def _print(report: Report, fmt: Format, stream: TextIO) -> None:
    with _to_reader():
        render(report, fmt, _console(stream))


@contextlib.contextmanager
def _reports(paths: list[Path] | None) -> Iterator[Callable[[Report], None]]:
    """A function that writes a report to each path, its format by the suffix.

    The paths are opened before any work, and published together at the end. Raises OutputError.
    """
    from vkfuse.output import atomic_file, write  # noqa: PLC0415 - only where there are files to write

    with contextlib.ExitStack() as stack:
        temporaries = [(path, stack.enter_context(atomic_file(path))) for path in paths or ()]

        def fill(report: Report) -> None:
            for path, temporary in temporaries:
                text = rendered(report, _FORMATS.get(path.suffix, Format.TEXT)).encode()
                write(temporary, partial(_put, text), path)

        yield fill


def _put(data: bytes, stream: IO[bytes]) -> None:
    stream.write(data)


LOG_WIDTH = 110  # columns where there is no terminal to ask


@contextlib.contextmanager
def _to_reader() -> Iterator[None]:
    """Write a result: a reader that goes away is no failed check, which Typer and Rich would make of it (exit 1)."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError as error:
        raise _ReaderGoneError from error


class _Console(Console):
    """A console that leaves a broken pipe to the command."""

    def on_broken_pipe(self) -> None:
        """Raise what Rich caught."""
        raise BrokenPipeError


def _console(stream: TextIO) -> Console:
    """A console on `stream`, as wide as the terminal, or as a log."""
    console = _Console(file=stream)
    return (
        console if console.is_terminal or "COLUMNS" in os.environ else _Console(file=stream, width=LOG_WIDTH)
    )


_FORMATS = {".json": Format.JSON, ".md": Format.MARKDOWN}


class _ReaderGoneError(BaseException):
    """The reader of stdout went away."""


class _Interrupted(BaseException):
    """Ctrl-C or a cancelled job. No Exception: upstream swallows those."""


def _interrupt(_signal: int, _frame: object) -> NoReturn:
    raise _Interrupted


def main() -> NoReturn:
    """Entry point: every error ends in one line, a remedy and an exit code."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        app()
    except VkfuseError as error:
        code = _fail(error.message, error.hint, error.exit_code)
    except ModuleNotFoundError as error:
        code = _fail(f"this command needs the package {error.name!r}", "pip install vkfuse", ExitCode.USAGE)
    except _Interrupted:
        code = _fail("interrupted", "nothing was written", ExitCode.INTERRUPTED)
    except (BrokenPipeError, _ReaderGoneError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains while it exits
        code = ExitCode.BROKEN_PIPE
    except Exception as error:  # noqa: BLE001 - a user never sees a traceback unless asked for
        code = _unexpected(error)
    sys.exit(code)


def _fail(message: str, hint: str, code: ExitCode) -> ExitCode:
    lines = [f"vkfuse: error: {message}"] + ([f"  hint: {hint}"] if hint else [])
    sys.stderr.write("\n".join(lines) + "\n")
    return code


def _unexpected(error: Exception) -> ExitCode:
    if {"-v", "--verbose"} & set(sys.argv):
        traceback.print_exc()
    text = next(iter(str(error).strip().splitlines()), "")
    hint = "a fault in vkfuse: run again with -v and report the traceback"
    return _fail(f"{type(error).__name__}: {text[:300]}", hint, ExitCode.LOWERING)
