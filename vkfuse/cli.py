"""The command line: parse, call one function, render, exit code. Heavy packages load inside the commands."""

import os
import sys
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from vkfuse import __version__, signals, streams
from vkfuse.commands import shader
from vkfuse.commands.arguments import (
    Bounds,
    Gating,
    Layouts,
    Loading,
    Losing,
    Lowering,
    ModelsArgument,
    NoConfigOption,
    Printing,
    QuietOption,
    RuntimeOption,
    TextOrJson,
    VerdictOption,
    grouped,
    tolerance_option,
)
from vkfuse.commands.running import (
    console,
    file_given,
    opened,
    outputs_of,
    pipeline,
    programs_read,
    progress,
    settled,
)
from vkfuse.errors import ExitCode, VkfuseError, remedy, spelled
from vkfuse.options import BaselineChoice, Options, Progress
from vkfuse.output import reported
from vkfuse.pages import seldom_collected
from vkfuse.program.methods import METHOD, parse_methods
from vkfuse.report.format import Format
from vkfuse.runtime.versions import default_runtime
from vkfuse.signals import Interrupted
from vkfuse.streams import ReaderGoneError

_PAIR = 2  # files of a diff
if TYPE_CHECKING:
    from vkfuse.report.model import Report

app = typer.Typer(
    name="vkfuse",
    help="Turn torchao-quantized PyTorch programs into small, loadable, proven ExecuTorch Vulkan files.",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


app.add_typer(shader.app, name="shader")


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
@grouped
def optimize(
    models: ModelsArgument,
    *,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="MODEL.pte",
            help="File to write, - is stdout. A temporary that a killed run left beside it is removed.",
        ),
    ] = None,
    check: Annotated[
        Path | None,
        typer.Option(
            metavar="MODEL.pte", help="Write nothing: build the file again and fail where this one differs."
        ),
    ] = None,
    keep_baseline: Annotated[
        Path | None, typer.Option(metavar="BEFORE.pte", help="Also write the file 'before' that was made.")
    ] = None,
    attestation: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="Also write an in-toto statement about the file, with the report, to be signed.",
        ),
    ] = None,
    runtime: RuntimeOption = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            metavar="folded|stock|none|FILE.pte",
            help="What 'before' is: tables folded to float, what the installed ExecuTorch makes, or a file.",
            show_default=BaselineChoice.FOLDED.value,
        ),
    ] = None,
    lowering: Lowering,
    losing: Losing,
    layouts: Layouts,
    gating: Gating,
    no_config: NoConfigOption = False,
    printing: Printing,
    loading: Loading,
    bounds: Bounds,
) -> None:
    """Turn MODEL.pt2 into a loadable Vulkan .pte and report what changed; several programs become its methods.

    A .pte whose program nobody has is rewritten: its tables are had back from their floats, without torch or ExecuTorch.
    """
    sources = parse_methods(models)
    gates, version = settled(gating, "optimize", runtime, no_config=no_config)
    options = Options(
        runtime=version,
        gates=gates,
        max_memory=bounds.max_memory,
    ).changed({**lowering, **losing, **layouts, **loading})
    from vkfuse.commands.optimize import Targets  # noqa: PLC0415 - the command's own module
    from vkfuse.commands.optimize import optimize as run  # noqa: PLC0415

    targets = Targets(
        output=output, check=check, baseline=baseline, attestation=attestation, keep_baseline=keep_baseline
    )
    run(sources, targets, options, printing, bounds)


@app.command()
@grouped
def inspect(
    models: ModelsArgument,
    *,
    runtime: RuntimeOption = None,
    what_if: Annotated[
        bool,
        typer.Option(
            "--what-if", help="Also what tables would take, and lose, at other settings, and the options."
        ),
    ] = False,
    layouts: Layouts,
    printing: Printing,
    loading: Loading,
    bounds: Bounds,
) -> None:
    """Show each quantized table of MODEL.pt2, or of a .pte, its verdict and what it would take, without lowering."""
    sources = parse_methods(models)
    version = default_runtime() if runtime is None else runtime
    options = Options(runtime=version, max_memory=bounds.max_memory).changed({**layouts, **loading})
    with (
        outputs_of(programs_read(sources), printing, bounds) as outputs,
        progress(quiet=printing.quiet) as stage,
    ):
        outputs.prints()
        outputs.show(_inspected(sources, options, stage, what_if=what_if))


def _inspected(sources: Mapping[str, Path], options: Options, stage: Progress, *, what_if: bool) -> "Report":
    """Plan for the file that was given, or for the programs."""
    file = file_given(sources)
    if file is not None:
        from vkfuse.patch.stages import inspect_file  # noqa: PLC0415 - not for --help

        return inspect_file(file, options, progress=stage, what_if=what_if).report
    programs = opened(sources, options)
    return pipeline().inspect(programs, options, progress=stage, what_if=what_if).report  # type: ignore[no-any-return]


@app.command("report")
@grouped
def report_command(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="NEW.pte [BASE.pte]",
            help="File to describe, and file to compare it with; - reads stdin. Three and more are described each.",
            show_default=False,
        ),
    ],
    *,
    each: Annotated[
        bool, typer.Option("--each", help="Describe each file, also where there are two.")
    ] = False,
    ptd: Annotated[
        list[Path] | None, typer.Option("--ptd", metavar="FILE", help="External data of NEW.pte.")
    ] = None,
    base_ptd: Annotated[
        list[Path] | None, typer.Option("--base-ptd", metavar="FILE", help="External data of BASE.pte.")
    ] = None,
    all_runtimes: Annotated[
        bool, typer.Option("--all-runtimes", help="Say which of the known runtimes load the file.")
    ] = False,
    hashed: Annotated[
        bool, typer.Option("--hash/--no-hash", help="Give the file's SHA-256, which reads all of it.")
    ] = True,
    runtime: RuntimeOption = None,
    gating: Gating,
    no_config: NoConfigOption = False,
    printing: Printing,
    bounds: Bounds,
) -> None:
    """Describe NEW.pte, and what changed against BASE.pte, or several files. Needs neither torch nor ExecuTorch."""
    from vkfuse.commands.report import Scope, report_each, report_files  # noqa: PLC0415 - the command's own module
    from vkfuse.report.checks import require_passed  # noqa: PLC0415 - not for --help

    gates, version = settled(gating, "report", runtime, no_config=no_config)
    apart = each or len(files) > _PAIR
    scope = Scope(
        ptd=tuple(ptd or ()), base_ptd=tuple(base_ptd or ()), all_runtimes=all_runtimes, hashed=hashed
    )
    roles = ("FILE.pte",) * len(files) if apart else ("NEW.pte", "BASE.pte")
    reads = [*zip(roles, files, strict=False), *(("--ptd", path) for path in (*scope.ptd, *scope.base_ptd))]
    with outputs_of(reads, printing, bounds) as outputs:
        outputs.prints()
        new, base = (*files, None)[:_PAIR]
        made = (
            report_each(files, version, gates, scope)
            if apart or new is None
            else report_files(new, base, version, gates, scope)
        )
        outputs.show(made)
    require_passed(made)


@app.command()
@grouped
def verify(
    model: Annotated[Path, typer.Argument(metavar="MODEL.pte", help="File to run.", show_default=False)],
    against: Annotated[
        Path, typer.Option("--against", metavar="MODEL.pt2", help="Program, or .pte, that it should compute.")
    ],
    *,
    inputs: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Inputs in place of the stored example: .pt or .npz.")
    ] = None,
    ptd: Annotated[
        list[Path] | None, typer.Option("--ptd", metavar="FILE", help="External data of the file.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=0, help="How many random inputs to try.")] = 3,
    atol: Annotated[float | None, tolerance_option("Absolute tolerance, in place of the dtype's.")] = None,
    rtol: Annotated[float | None, tolerance_option("Relative tolerance, in place of the dtype's.")] = None,
    method: Annotated[str, typer.Option(help="Method of the file.")] = "forward",
    device: Annotated[
        bool,
        typer.Option(
            "--device",
            help="Also run on a Vulkan driver: lookups, and the whole file.",
        ),
    ] = False,
    runtime: RuntimeOption = None,
    report: VerdictOption = None,
    fmt: Annotated[TextOrJson, typer.Option("--format", help="How to print the verdict.")] = TextOrJson.TEXT,
    quiet: QuietOption = False,
    loading: Loading,
    bounds: Bounds,
) -> None:
    """Run MODEL.pte's own bytes and say whether it computes what MODEL.pt2, or another .pte, does."""
    reads = [("MODEL.pte", model), ("--against", against), *(("--ptd", path) for path in ptd or ())]
    reads += [] if inputs is None else [("--inputs", inputs)]
    printing = Printing(report=report, quiet=quiet)
    with outputs_of(reads, printing, bounds) as outputs, progress(quiet=quiet) as stage:
        outputs.prints()
        options = Options(max_memory=bounds.max_memory).changed(loading)
        program = file_given({METHOD: against}) or opened({"--against": against}, options)["--against"]
        stage("loading")
        pipeline()
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
                runtime=default_runtime() if runtime is None else runtime,
                seeds=seeds,
                tolerance=Tolerance(atol=atol, rtol=rtol),
                device=device,
            ),
            max_memory=bounds.max_memory,
            verbose=options.verbose,
        )
        outputs.fill(partial(command.rendered, verification))
        if not quiet:
            command.render(verification, Format(fmt), console(sys.stdout))
            sys.stdout.flush()
    if quiet:
        command.require_same(verification, model)
    if not verification.ok:
        raise typer.Exit(ExitCode.CHECK_FAILED)


@app.command()
@grouped
def demo(
    folder: Annotated[Path, typer.Argument(help="Where to write model.pt2 and model.pte.")] = Path("demo"),
    *,
    quiet: QuietOption = False,
) -> None:
    """Write a realistic quantized decoder as model.pt2 and optimize it."""
    program, model = folder / "model.pt2", folder / "model.pte"
    with reported(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with outputs_of([], Printing(quiet=quiet), Bounds()) as outputs, progress(quiet=quiet) as stage:
        temporaries = [outputs.publication.file(path) for path in (program, model)]
        outputs.prints()
        pipeline()
        from vkfuse.commands.demo import make_demo  # noqa: PLC0415 - imports torch

        outputs.show(make_demo(program, model, *temporaries, progress=stage))


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
        with seldom_collected():
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
            message, code = spelled(error), ExitCode.FAULT
            hint = "a fault in vkfuse: run again with -v and report the traceback"
    from vkfuse.report.visible import visible  # noqa: PLC0415 - not for --help

    lines = [f"vkfuse: error: {message}"] + ([f"  hint: {hint}"] if hint else [])
    sys.stderr.write(visible("\n".join(lines)) + "\n")
    return code
