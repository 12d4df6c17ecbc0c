"""`vkfuse shader`: the embedding shader, listed, built, exported, checked and timed. Imports no torch."""

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vkfuse.commands.arguments import Bounds, Printing, TextOrJson
from vkfuse.commands.running import outputs_of, progress
from vkfuse.errors import ExitCode, VkfuseError
from vkfuse.glsl.variants import ROWS_PER_BLOCK, VARIANTS, Variant
from vkfuse.report.format import Format

if TYPE_CHECKING:
    from vkfuse.glsl.bench import BenchOptions
    from vkfuse.glsl.vulkan.device import DeviceInfo

app = typer.Typer(
    help="The embedding shader: list, build, export, check and time it.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


FormatOption = Annotated[TextOrJson, typer.Option("--format", help="How to print the result.")]
DeviceOption = Annotated[
    int | None,
    typer.Option(
        "--device", min=0, help="Vulkan device by number; the first GPU unless given.", show_default=False
    ),
]
ReportOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--report", metavar="PATH", help="Also write the result here, as often as wanted: .json or text."
    ),
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")]


@app.command("list")
def list_shaders(*, fmt: FormatOption = TextOrJson.TEXT) -> None:
    """List the compiled variants that ship in the package."""
    from vkfuse.commands.shader_text import manifest_text  # noqa: PLC0415
    from vkfuse.glsl.manifest import shipped_manifest  # noqa: PLC0415 - the command's own modules

    manifest = shipped_manifest()
    typer.echo(manifest.dumps() if fmt is TextOrJson.JSON else manifest_text(manifest), nl=False)


@app.command()
def build(
    *,
    write: Annotated[
        bool,
        typer.Option("--write", help="Replace the package's SPIR-V and manifest; for a source checkout."),
    ] = False,
) -> None:
    """Compile the template with ExecuTorch's generator and glslc, and compare with what the package ships."""
    from vkfuse.glsl.build import build as build_shaders  # noqa: PLC0415 - the command's own modules
    from vkfuse.glsl.build import check_shipped, ship  # noqa: PLC0415
    from vkfuse.glsl.manifest import shipped_manifest  # noqa: PLC0415

    built = build_shaders()
    if write:
        ship(built)
        typer.echo(f"{len(built.shaders)} shaders compiled, validated and written")
        return
    check_shipped(built, shipped_manifest())
    typer.echo(f"{len(built.shaders)} shaders compiled, validated and equal to the package's")


@app.command()
def export(
    folder: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="An ExecuTorch tree, or any folder.", show_default=False),
    ],
) -> None:
    """Write template, variants, SPIR-V and manifest to DIR; in an ExecuTorch tree, replace its template."""
    from vkfuse.glsl.build import export as export_shaders  # noqa: PLC0415 - the command's own module

    for path in export_shaders(folder):
        typer.echo(str(path))


@app.command()
def check(
    *,
    device: DeviceOption = None,
    variant: Annotated[
        str, typer.Option("--variant", metavar="GLOB", help="Only variants whose names match.")
    ] = "*",
    validate: Annotated[
        bool,
        typer.Option("--validate/--no-validate", help="Use the Khronos validation layer, where installed."),
    ] = True,
    report: ReportOption = None,
    fmt: FormatOption = TextOrJson.TEXT,
    quiet: QuietOption = False,
) -> None:
    """Run every variant on a Vulkan driver and compare with a reference, bit for bit. Exit code 1 when one is wrong."""
    from vkfuse.commands.shader_text import check_text  # noqa: PLC0415
    from vkfuse.glsl.check import check as check_variants  # noqa: PLC0415 - the command's own modules
    from vkfuse.glsl.vulkan.device import open_device  # noqa: PLC0415

    chosen = variants_matching(variant)
    with results(fmt, report) as show:
        with open_device(device, validate=validate) as opened, progress(quiet=quiet) as stage:
            result = check_variants(opened, chosen, progress=stage)
        show(check_text(result), result.as_dict())
    if not result.ok:
        raise typer.Exit(ExitCode.CHECK_FAILED)


@app.command()
def bench(
    *,
    device: DeviceOption = None,
    tokens: Annotated[
        list[int] | None, typer.Option("--tokens", min=1, help="Rows to look up; as often as wanted.")
    ] = None,
    embed_dim: Annotated[
        list[int] | None,
        typer.Option("--embed-dim", min=32, help="Columns of the table; as often as wanted."),
    ] = None,
    variant: Annotated[
        str,
        typer.Option("--variant", metavar="GLOB", help="Only variants whose names match; scales are float."),
    ] = "*",
    neighbours: Annotated[
        int,
        typer.Option(
            "--neighbours",
            min=1,
            help="Indices ask for a row in each of so many neighbouring blocks of 8 rows, from a random one on.",
        ),
    ] = 1,
    report: ReportOption = None,
    fmt: FormatOption = TextOrJson.TEXT,
    quiet: QuietOption = False,
) -> None:
    """Time the shader beside the runtime's mapping and a plain copy, by GPU timestamps."""
    from vkfuse.commands.shader_text import bench_text  # noqa: PLC0415
    from vkfuse.glsl.bench import FLOAT_SCALES  # noqa: PLC0415 - the command's own modules
    from vkfuse.glsl.bench import bench as bench_variants  # noqa: PLC0415
    from vkfuse.glsl.vulkan.device import open_device  # noqa: PLC0415

    chosen = variants_matching(variant, FLOAT_SCALES)
    with results(fmt, report) as show:
        with open_device(device) as opened, progress(quiet=quiet) as stage:
            options = bench_options(opened.info, tokens, embed_dim, neighbours)
            result = bench_variants(opened, options, chosen, progress=stage)
        show(bench_text(result), result.as_dict())


def bench_options(
    info: "DeviceInfo", tokens: list[int] | None, embed_dims: list[int] | None, neighbours: int
) -> "BenchOptions":
    """The device's default options, with the user's shapes. VkfuseError for what no variant or table takes."""
    from dataclasses import replace  # noqa: PLC0415 - with the command's modules

    from vkfuse.glsl.bench import default_options  # noqa: PLC0415

    options = default_options(info)
    odd = [columns for columns in embed_dims or [] if columns % options.group_size]
    if odd:
        raise VkfuseError(
            f"{odd[0]} columns are no multiple of {options.group_size}", hint="the runtime refuses them"
        )
    if neighbours * ROWS_PER_BLOCK > options.vocab:
        raise VkfuseError(f"a table of {options.vocab} rows has no {neighbours} blocks of {ROWS_PER_BLOCK}")
    return replace(
        options,
        neighbours=neighbours,
        tokens=tuple(tokens or options.tokens),
        embed_dims=tuple(embed_dims or options.embed_dims),
    )


def variants_matching(pattern: str, variants: Sequence[Variant] = VARIANTS) -> tuple[Variant, ...]:
    """The variants whose names match a glob. VkfuseError when none does."""
    chosen = tuple(variant for variant in variants if fnmatch(variant.name, pattern))
    if not chosen:
        scales = " with float scales" if len(variants) < len(VARIANTS) else ""
        raise VkfuseError(f"no variant{scales} matches {pattern!r}", hint="vkfuse shader list names them")
    return chosen


Show = Callable[[str, dict[str, object]], None]


@contextlib.contextmanager
def results(fmt: TextOrJson, paths: list[Path] | None) -> Iterator[Show]:
    """A function that writes a result to each of `paths`, in the format of its suffix, and prints it.

    The paths are checked before any work. OutputError.
    """
    with outputs_of([], Printing(report=paths), Bounds()) as outputs:
        outputs.prints()

        def show(text: str, data: dict[str, object]) -> None:
            as_json = json.dumps(data, indent=2) + "\n"
            outputs.fill(lambda of: as_json if of is Format.JSON else text)
            typer.echo(as_json if fmt is TextOrJson.JSON else text, nl=False)

        yield show
