"""The options that several commands share, each once; a command takes a group of them as one parameter."""

import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import Field, dataclass, fields, is_dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

import typer

from vkfuse.options import offered
from vkfuse.quantities import parse_seconds, parse_size
from vkfuse.report.format import Format

_Parsed = TypeVar("_Parsed")


class TextOrJson(StrEnum):
    """How a result is written that is no report: text for people, JSON for scripts."""

    TEXT = "text"
    JSON = "json"


Command = Callable[..., None]
Chosen = Mapping[str, Any]  # what a user named, by field


@dataclass(frozen=True, slots=True)
class Fields:
    """Options of a run that a command offers, by the names of their fields; as `gates` a bool may be denied."""

    names: str
    gates: bool = False

    def parameters(self) -> Iterator[inspect.Parameter]:
        """Yield a parameter for each; what is not named is None, or the default that help shows."""
        for of, kind in offered(self.names):
            yield _parameter(of.name, *_as_option(of, kind, gates=self.gates))

    def chosen(self, given: Mapping[str, Any]) -> Chosen:
        """What was named of `given`."""
        named = ((of, given[of.name]) for of, _ in offered(self.names) if given[of.name] is not None)
        return {of.name: (of.metadata["read"] or _plain)(value) for of, value in named}


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _as_option(of: Field[Any], kind: Any, *, gates: bool) -> tuple[Any, Any]:
    """The annotation and the default of a field as an option."""
    told = of.metadata
    several = get_origin(kind) in {tuple, Mapping}
    (of_several, *_), read = get_args(kind) or (kind,), told["read"] is not None
    item = str if read else of_several if several else kind
    flags = told["flag"] or f"--{of.name.replace('_', '-')}"
    if gates and kind is bool:
        flags += f"/--no-{of.name.replace('_', '-')}"
    optional = several or gates or of.default is None
    made = typer.Option(
        *(() if of.default is True else flags.split(" ")),
        help=told["told"],
        metavar=told["metavar"],
        parser=parsed_by(told["parse"]) if told["parse"] and not read else None,
        show_default=not optional,
    )
    shown = list[item] | None if several else item | None if optional else item  # type: ignore[valid-type]
    return Annotated[shown, made], None if optional else of.default


def grouped(command: Command) -> Command:
    """Let Typer see the options of each group that `command` takes, and the command the groups.

    A group is a dataclass whose fields are options, or `Fields` of one, which the command gets as they were chosen.
    """
    hints = get_type_hints(command, include_extras=True)
    hints.pop("return", None)
    defaults = {name: given.default for name, given in inspect.signature(command).parameters.items()}
    parameters = [p for name, kind in hints.items() for p in _parameters(name, kind, defaults[name])]

    def run(**given: Any) -> None:
        taken: dict[str, Any] = {}
        for name, kind in hints.items():
            own = {each.name: given.pop(each.name) for each in _parameters(name, kind, defaults[name])}
            chosen = _fields_of(kind)
            if chosen is not None:
                taken[name] = chosen.chosen(own)
            else:
                taken[name] = kind(**own) if isinstance(kind, type) and is_dataclass(kind) else own[name]
        command(**taken)

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    run.__name__, run.__doc__ = command.__name__, command.__doc__
    return run


def _fields_of(kind: Any) -> Fields | None:
    return next((of for of in getattr(kind, "__metadata__", ()) if isinstance(of, Fields)), None)


def _parameters(name: str, kind: Any, default: Any) -> Iterator[inspect.Parameter]:
    """Yield a parameter as it is, or the fields of a group."""
    chosen = _fields_of(kind)
    if chosen is not None:
        yield from chosen.parameters()
    elif is_dataclass(kind):
        kinds = get_type_hints(kind, include_extras=True)
        yield from (_parameter(each.name, kinds[each.name], each.default) for each in fields(kind))
    else:
        yield _parameter(name, kind, default)


def _parameter(name: str, kind: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)


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


Lowering = Annotated[
    Chosen,
    Fields("fp16 compute storage verify partial small_textures embed_shader names cache check_indices"),
]
Losing = Annotated[Chosen, Fields("quantize_embedding quantize tie")]
Layouts = Annotated[Chosen, Fields("lookup_layout scales")]
Loading = Annotated[Chosen, Fields("allow_pickle imports verbose")]
Gating = Annotated[
    Chosen,
    Fields("max_size max_growth max_growth_of require forbid_cpu_op exact exit_code", gates=True),
]
NoConfigOption = Annotated[
    bool, typer.Option("--no-config", help="Read no checks from vkfuse.toml or pyproject.toml.")
]


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
