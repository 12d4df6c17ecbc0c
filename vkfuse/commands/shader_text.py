"""Reports of the shader commands as text."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from statistics import geometric_mean

from vkfuse.glsl.bench import BenchReport, Row
from vkfuse.glsl.check import CheckReport
from vkfuse.glsl.manifest import Manifest
from vkfuse.glsl.variants import TensorStorage, variant_named
from vkfuse.report.section import Cell, Column, figure, listing
from vkfuse.report.text import table_text

GIGA = 1e9
MICRO = 1e-6


def manifest_text(manifest: Manifest) -> str:
    """A line for each shader: name, size, hash, features."""
    columns = (Column("shader"), figure("bytes"), Column("sha256"), Column("features"))
    rows = [(s.name, s.bytes, s.sha256[:12], ", ".join(s.features) or "-") for s in manifest.shaders]
    return f"{table_text(listing('', columns, rows))}{len(rows)} shaders\n"


def check_text(report: CheckReport) -> str:
    """A line for each variant, one for each problem, and the verdict."""
    return "\n".join((*_check_lines(report), ""))


def _check_lines(report: CheckReport) -> Iterator[str]:
    yield f"device {report.device['index']}: {report.device['name']} (Vulkan {report.device['api_version']})"
    for variant, group in groupby(report.outcomes, key=lambda outcome: outcome.variant):
        outcomes = list(group)
        yield f"  {variant}: {sum(outcome.ok for outcome in outcomes)}/{len(outcomes)}"
        yield from (f"    {outcome.case}: {outcome.problem}" for outcome in outcomes if not outcome.ok)
    yield from (f"  validation: {message}" for message in report.messages)
    yield f"spirv-val: {'no message' if report.spirv_val else 'not installed'}"
    layer = f"{len(report.messages) or 'no'} messages" if report.validation_layer else "not used"
    yield f"Khronos validation layer: {layer}"
    yield f"shaders: sha256 {report.shaders}"
    right = sum(outcome.ok for outcome in report.outcomes)
    yield f"{right} of {len(report.outcomes)} lookups right, bit for bit"


def bench_text(report: BenchReport) -> str:
    """A table for each storage of the output, and the summary."""
    return "\n".join((*_bench_lines(report), ""))


def _bench_lines(report: BenchReport) -> Iterator[str]:
    options = report.options
    yield f"device {report.device['index']}: {report.device['name']} (Vulkan {report.device['api_version']})"
    yield (
        f"copy of {options.copy_bytes >> 20} MiB: {report.copy_shader / GIGA:.0f} GB/s by a shader, "
        f"{report.copy_command / GIGA:.0f} GB/s by vkCmdCopyBuffer (read and written)"
    )
    rows_of = (
        "" if options.neighbours == 1 else f", rows of {options.neighbours} neighbouring blocks together"
    )
    yield f"tables of {options.vocab} rows, groups of {options.group_size}{rows_of}; best of {options.rounds} rounds"
    for storage in dict.fromkeys(variant_named(name).storage for name in report.variants):
        rows = [row for row in report.rows if variant_named(row.variant).storage is storage]
        yield ""
        if rows:
            yield table_text(listing("", _BENCH, (_cells(row, report.copy) for row in rows))).rstrip()
            yield summary(storage, rows)
        else:
            yield f"no shape fits the device's limits for {storage} outputs"


_BENCH = (
    *map(Column, ("output", "weight")),
    *map(figure, ("tokens", "columns", "us", "GB/s", "of copy", "stock us", "faster")),
    *map(figure, ("alone us", "stock us", "faster")),
)


def _cells(row: Row, copy: float) -> tuple[Cell, ...]:
    variant = variant_named(row.variant)
    return (
        f"{variant.storage} {variant.dtype}",
        variant.weight,
        row.tokens,
        row.embed_dim,
        f"{row.stream / MICRO:.2f}",
        f"{row.bandwidth / GIGA:.0f}",
        f"{row.bandwidth / copy:.0%}",
        f"{row.stream_stock / MICRO:.2f}",
        f"{row.speedup:.2f}x",
        f"{row.alone / MICRO:.2f}",
        f"{row.alone_stock / MICRO:.2f}",
        f"{row.speedup_alone:.2f}x",
    )


def summary(storage: TensorStorage, rows: Sequence[Row]) -> str:
    """Geometric mean and smallest speed-up over the runtime's mapping."""
    stream, alone = [row.speedup for row in rows], [row.speedup_alone for row in rows]
    return (
        f"{storage} outputs against the runtime's mapping: {geometric_mean(stream):.2f}x in a stream "
        f"(at least {min(stream):.2f}x), {geometric_mean(alone):.2f}x alone (at least {min(alone):.2f}x)"
    )
