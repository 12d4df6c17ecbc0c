"""The options that several commands share, each once; a command takes a group of them as one parameter."""

import inspect
import math
from collections.abc import Callable, Iterator
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

import typer

from vkfuse.gates import Growth, Requirement, labelled, parse_growth
from vkfuse.lossy import Choice, Lossy, Setting, parse_choice, parse_setting
from vkfuse.options import DEFAULT_LAYOUT, LookupLayout, Scales
from vkfuse.quantities import parse_seconds, parse_size
from vkfuse.report.format import Format

_Parsed = TypeVar("_Parsed")
Command = Callable[..., None]


def grouped(command: Command) -> Command:
    """Let Typer see the options of each group that `command` takes, and the command the groups.

    A group is a dataclass whose fields are options.
    """
    hints = get_type_hints(command, include_extras=True)
    hints.pop("return", None)
    defaults = {name: given.default for name, given in inspect.signature(command).parameters.items()}
    parameters = [p for name, kind in hints.items() for p in _parameters(name, kind, defaults[name])]

    def run(**given: Any) -> None:
        taken = {
            name: kind(**{of.name: given.pop(of.name) for of in fields(kind)})
            for name, kind in hints.items()
            if isinstance(kind, type) and is_dataclass(kind)
        }
        command(**given, **taken)

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    run.__name__, run.__doc__ = command.__name__, command.__doc__
    return run


def _parameters(name: str, kind: Any, default: Any) -> Iterator[inspect.Parameter]:
    """Yield a parameter as it is, or the fields of a group."""
    if not is_dataclass(kind):
        yield inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        return
    kinds = get_type_hints(kind, include_extras=True)
    for of in fields(kind):
        default = inspect.Parameter.empty if of.default is MISSING else of.default
        yield inspect.Parameter(
            of.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kinds[of.name]
        )


def parsed_by(parse: Callable[[str], _Parsed]) -> Callable[[str], _Parsed]:
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


def tolerance_option(text: str) -> Any:
    """An option whose value is a tolerance."""
    return typer.Option(metavar="NUMBER", parser=parsed_by(_tolerance), help=text)


ModelsArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="MODEL.pt2",
        help="Exported program or .pte, or NAME=MODEL.pt2 for each of several methods; - reads stdin, ./A=B.pt2 is a path.",
        show_default=False,
    ),
]
RuntimeOption = Annotated[
    str | None,
    typer.Option(
        "--runtime",
        metavar="VERSION",
        help="ExecuTorch version that will load the file; unless given, that of the installed one.",
        show_default=False,
    ),
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
ReportOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--report",
        metavar="PATH",
        help="Also write the report here, as often as wanted: .json, .md, .html, .csv, .tsv or text.",
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Printing:
    """Where the report goes, and how it is written."""

    report: ReportOption = None
    fmt: Annotated[Format, typer.Option("--format", help="How to print the report.")] = Format.TEXT
    every: Annotated[
        bool,
        typer.Option(
            "--all", help="Every row in text and markdown, where equal layers else are one: layers.*."
        ),
    ] = False
    quiet: QuietOption = False
    github_summary: Annotated[
        bool,
        typer.Option(
            "--github-summary",
            help="Also append the report as markdown to $GITHUB_STEP_SUMMARY, a job's page.",
        ),
    ] = False


VerdictOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--report", metavar="PATH", help="Also write the verdict here, as often as wanted: .json or text."
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layouts:
    """How tables are stored, where there is a choice."""

    lookup_layout: Annotated[
        LookupLayout,
        typer.Option(
            help="How 4-bit tables that no linear reads are stored: flat is faster, but not for every GPU."
        ),
    ] = DEFAULT_LAYOUT
    scales: Annotated[
        Scales,
        typer.Option(
            help="Scales of fused lookups: in half precision where none changes, always (lossy), or float32."
        ),
    ] = Scales.AUTO


@dataclass(frozen=True, slots=True, kw_only=True)
class Loading:
    """How a program is loaded."""

    allow_pickle: Annotated[
        bool,
        typer.Option(
            "--allow-pickle", help="Load pickles with names off the allowlist. Only for files that you trust."
        ),
    ] = False
    imports: Annotated[
        list[str] | None,
        typer.Option(
            "--import",
            metavar="MODULE",
            help="Import a Python module that registers operators of the program; its code is run.",
        ),
    ] = None
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show the logs and warnings of torch and ExecuTorch.")
    ] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Losing:
    """What a run is asked to lose."""

    quantize_embedding: Annotated[
        Setting | None,
        typer.Option(
            "--quantize-embedding",
            metavar="SETTING",
            parser=parsed_by(parse_setting),
            help="Quantize float tables that are looked up: int4:64, int4:32:torchao. Lossy.",
            show_default=False,
        ),
    ] = None
    quantize: Annotated[
        list[Choice] | None,
        typer.Option(
            "--quantize",
            metavar="REGEX=SETTING",
            parser=parsed_by(parse_choice),
            help="The same of tables by name, of linears too: 'layers\\..*=int4:32'; as often as wanted. Lossy.",
            show_default=False,
        ),
    ] = None
    tie: Annotated[
        bool,
        typer.Option("--tie", help="Let a linear with the floats of such a lookup read its integers. Lossy."),
    ] = False

    def asked(self) -> Lossy:
        """The same as an option of the run."""
        return Lossy(
            quantize_embedding=self.quantize_embedding, quantize=tuple(self.quantize or ()), tie=self.tie
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What a run may take."""

    max_memory: Annotated[
        int | None,
        typer.Option(
            "--max-memory",
            metavar="SIZE",
            parser=parsed_by(parse_size),
            help="End the run with exit code 2 when it takes more: 4GiB, 1.5GB, bytes. Needs Linux.",
        ),
    ] = None
    timeout: Annotated[
        float | None,
        typer.Option(
            "--timeout",
            metavar="TIME",
            parser=parsed_by(parse_seconds),
            help="End the run with exit code 2 when it takes longer: 90, 90s, 5m, 1.5h.",
        ),
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gating:
    """Checks of a file, in the place of those that a file of settings asks for."""

    max_size: Annotated[
        int | None,
        typer.Option(
            "--max-size", metavar="SIZE", parser=parsed_by(parse_size), help="Fail a larger file: 350MiB."
        ),
    ] = None
    max_growth: Annotated[
        Growth | None,
        typer.Option(
            "--max-growth",
            metavar="GROWTH",
            parser=parsed_by(parse_growth),
            help="Fail a file that grew more since the one before: 1%, 500KiB, 0, -10%.",
        ),
    ] = None
    max_growth_of: Annotated[
        list[str] | None,
        typer.Option(
            "--max-growth-of",
            metavar="LABEL=GROWTH",
            help="The same of a kind of bytes, a label or a table, with * and ?; as often as wanted.",
        ),
    ] = None
    require: Annotated[
        list[Requirement] | None,
        typer.Option("--require", help="Fail a file that is not; as often as wanted."),
    ] = None
    forbid_cpu_op: Annotated[
        list[str] | None,
        typer.Option(
            "--forbid-cpu-op",
            metavar="GLOB",
            help="Fail a file that calls such a kernel on the CPU: 'aten::embedding*'; as often as wanted.",
        ),
    ] = None
    exact: Annotated[
        bool | None,
        typer.Option(
            "--exact/--no-exact",
            help="Fail a file with a table that is not the program's, bit for bit.",
            show_default=False,
        ),
    ] = None
    exit_code: Annotated[
        bool | None,
        typer.Option(
            "--exit-code/--no-exit-code",
            help="Fail a file that differs from the one before.",
            show_default=False,
        ),
    ] = None
    no_config: Annotated[
        bool, typer.Option("--no-config", help="Read no checks from vkfuse.toml or pyproject.toml.")
    ] = False

    @property
    def asked(self) -> dict[str, Any]:
        """The gates that were named, by their field."""
        given = {of.name: getattr(self, of.name) for of in fields(self) if of.name != "no_config"}
        if self.max_growth_of is not None:
            given["max_growth_of"] = labelled(self.max_growth_of)
        return {name: value for name, value in given.items() if value is not None}
