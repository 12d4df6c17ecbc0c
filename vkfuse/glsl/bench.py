"""Time the shader on a device, beside the runtime's mapping and a plain copy, by GPU timestamps in one run."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from typing import Any, TypeAlias

from vkfuse.glsl.manifest import bench_spirv, digest, shipped_spirv
from vkfuse.glsl.variants import VARIANTS, BindingKind, DType, Variant, WeightLayout
from vkfuse.glsl.vulkan.device import Device, DeviceInfo
from vkfuse.glsl.vulkan.instance import vk
from vkfuse.glsl.vulkan.memory import Buffer, create_buffer
from vkfuse.glsl.vulkan.pipeline import Pipeline, barrier, open_pipeline, open_timer
from vkfuse.glsl.workload import DeviceTable, Shape, Workload, fits, random_tables, workload

COPY_LOCAL = 256
COPY_BYTES_PER_GROUP = COPY_LOCAL * 4 * 16  # four vectors of 16 bytes an invocation, see copy.glsl
FLOAT_SCALES = tuple(variant for variant in VARIANTS if variant.scales is DType.FLOAT)
Progress: TypeAlias = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchOptions:
    """What to time.

    `neighbours`: blocks of 8 rows that indices ask for in a row (see `Shape`). `output_bytes` bounds the outputs of one
    measurement, `copy_bytes` is the size of a copy.
    """

    tokens: tuple[int, ...] = (1, 64, 512, 4096, 8192)
    embed_dims: tuple[int, ...] = (384, 2048, 4096)
    vocab: int = 65536
    group_size: int = 32
    neighbours: int = 1
    rounds: int = 9
    max_dispatches: int = 32
    output_bytes: int = 1 << 30
    copy_bytes: int = 1 << 28
    warm_up_seconds: float = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One variant at one shape. Times are seconds of one dispatch: in a stream of them, and alone between barriers."""

    variant: str
    tokens: int
    embed_dim: int
    bytes_read: int
    bytes_written: int
    stream: float
    stream_stock: float
    alone: float
    alone_stock: float

    @property
    def speedup(self) -> float:
        """How much faster than the runtime's mapping, in a stream."""
        return self.stream_stock / self.stream

    @property
    def speedup_alone(self) -> float:
        """How much faster than the runtime's mapping, alone."""
        return self.alone_stock / self.alone

    @property
    def bandwidth(self) -> float:
        """Bytes a second, counting what the layout makes it touch."""
        return (self.bytes_read + self.bytes_written) / self.stream


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchReport:
    """Rows of the shapes that fit the device, for `variants` by name; `shaders` is the digest of their SPIR-V.

    The copies are bandwidths (bytes read and written a second): one by a shader, one by vkCmdCopyBuffer.
    """

    device: dict[str, object]
    options: BenchOptions
    variants: tuple[str, ...]
    shaders: str
    copy_shader: float
    copy_command: float
    rows: tuple[Row, ...]

    @property
    def copy(self) -> float:
        """The yardstick: the faster copy."""
        return max(self.copy_shader, self.copy_command)

    def as_dict(self) -> dict[str, object]:
        """Plain data for JSON, with the derived figures."""
        rows = [
            {
                **asdict(row),
                "speedup": row.speedup,
                "speedup_alone": row.speedup_alone,
                "bandwidth": row.bandwidth,
                "share_of_copy": row.bandwidth / self.copy,
            }
            for row in self.rows
        ]
        return {**asdict(self), "schema": "vkfuse.shader-bench/1", "copy": self.copy, "rows": rows}


def default_options(info: DeviceInfo) -> BenchOptions:
    """The whole matrix for a GPU; a small one for a driver that computes on the CPU."""
    if info.kind != "cpu":
        return BenchOptions()
    return BenchOptions(
        tokens=(1, 64, 512),
        embed_dims=(384, 2048),
        vocab=4096,
        max_dispatches=4,
        output_bytes=1 << 24,
        copy_bytes=1 << 24,
        warm_up_seconds=0,
    )


def bench(
    device: Device,
    options: BenchOptions,
    variants: Sequence[Variant] = FLOAT_SCALES,
    progress: Progress = lambda _: None,
) -> BenchReport:
    """Time variants, all of them with float scales, at all shapes; the scales' type changes one load of eight."""
    with Bench.opened(device, options) as run:
        progress("copy")
        copies = run.copy_bandwidth(run.copy_by_shader), run.copy_bandwidth(run.copy_by_command)
        rows = tuple(run.rows(variants, progress))
    return BenchReport(
        device=device.info.as_dict(),
        options=options,
        variants=tuple(variant.name for variant in variants),
        shaders=digest(shipped_spirv(variant) for variant in variants),
        copy_shader=copies[0],
        copy_command=copies[1],
        rows=rows,
    )


@dataclass(slots=True, kw_only=True)
class Bench:
    """A benchmark at work: the device, and the copy, which is also what warms it up and empties its caches."""

    device: Device
    options: BenchOptions
    source: Buffer
    target: Buffer
    pipeline: Pipeline
    descriptors: Any

    @classmethod
    @contextmanager
    def opened(cls, device: Device, options: BenchOptions) -> Iterator["Bench"]:
        """Set up the copy."""
        kinds = (BindingKind.STORAGE_BUFFER, BindingKind.STORAGE_BUFFER)
        with ExitStack() as stack:
            source, target = (create_buffer(stack, device, options.copy_bytes) for _ in range(2))
            opened = open_pipeline(device, bench_spirv("copy"), kinds, (COPY_LOCAL, 1, 1))
            pipeline = stack.enter_context(opened)
            yield cls(
                device=device,
                options=options,
                source=source,
                target=target,
                pipeline=pipeline,
                descriptors=pipeline.bind((target, source)),
            )

    def copy_by_shader(self, commands: Any) -> None:
        """Record one copy by our own shader."""
        groups = self.options.copy_bytes // COPY_BYTES_PER_GROUP
        self.pipeline.record(commands, self.descriptors, b"", (groups, 1, 1))

    def copy_by_command(self, commands: Any) -> None:
        """Record one copy by the driver's."""
        region = vk.VkBufferCopy(size=self.options.copy_bytes)
        vk.vkCmdCopyBuffer(commands, self.source.handle, self.target.handle, 1, [region])

    def copy_bandwidth(self, record: Callable[[Any], None]) -> float:
        """Bytes read and written a second, at best."""
        with open_timer(self.device, record) as timer:
            self.warm_up()
            best = min(timer.seconds() for _ in range(self.options.rounds))
        return 2 * self.options.copy_bytes / best

    def warm_up(self) -> None:
        """Keep the device busy until its clocks are up."""
        end = time.monotonic() + self.options.warm_up_seconds

        def copies(commands: Any) -> None:
            for _ in range(20):
                self.copy_by_shader(commands)

        with self.device.recorded(copies) as commands:
            while time.monotonic() < end:
                self.device.run(commands)

    def rows(self, variants: Sequence[Variant], progress: Progress) -> Iterator[Row]:
        """Time all that fits the device; tables are made once for a layout and a width."""
        options = self.options
        for layout, embed_dim in product(WeightLayout, options.embed_dims):
            of_layout = [variant for variant in variants if variant.weight is layout]
            shapes = [
                Shape(
                    tokens=tokens,
                    embed_dim=embed_dim,
                    vocab=options.vocab,
                    group_size=options.group_size,
                    neighbours=options.neighbours,
                )
                for tokens in options.tokens
            ]
            points = [pair for pair in product(of_layout, shapes) if fits(self.device.info, *pair)]
            if not points:
                continue
            progress(f"{layout}, {embed_dim} columns")
            with random_tables(self.device, layout, DType.FLOAT, shapes[0]) as tables:
                for variant, shape in points:
                    yield self.row(variant, shape, tables)

    def row(self, variant: Variant, shape: Shape, tables: tuple[DeviceTable, ...]) -> Row:
        """Time a variant and its rival at a shape, in turns; the best of all rounds, which disturbances do not reach."""
        output = shape.tokens * shape.embed_dim * variant.dtype.nbytes
        dispatches = max(len(tables), min(self.options.max_dispatches, self.options.output_bytes // output))
        with workload(self.device, variant, shape, tables, dispatches) as work, ExitStack() as stack:
            timers = [
                stack.enter_context(timer)
                for spirv in (shipped_spirv(variant), bench_spirv(variant.name))
                for timer in self._timers(stack, variant, shape, work, spirv)
            ]
            self.warm_up()
            rounds = [[timer.seconds() / dispatches for timer in timers] for _ in range(self.options.rounds)]
        stream, alone, stream_stock, alone_stock = (min(times) for times in zip(*rounds, strict=True))
        return Row(
            variant=variant.name,
            tokens=shape.tokens,
            embed_dim=shape.embed_dim,
            bytes_read=work.bytes_read,
            bytes_written=output,
            stream=stream,
            stream_stock=stream_stock,
            alone=alone,
            alone_stock=alone_stock,
        )

    def _timers(
        self, stack: ExitStack, variant: Variant, shape: Shape, work: Workload, spirv: bytes
    ) -> Iterator[Any]:
        """Timers of all dispatches in a stream, and of each alone; a copy empties the caches before."""
        opened = open_pipeline(self.device, spirv, variant.bindings, shape.local, sets=len(work.dispatches))
        pipeline = stack.enter_context(opened)
        sets = [pipeline.bind(resources) for resources in work.dispatches]
        push = variant.push_constants(shape.group_size)

        def record(commands: Any, *, apart: bool) -> None:
            for descriptors in sets:
                pipeline.record(commands, descriptors, push, shape.groups)
                if apart:
                    barrier(commands)

        for apart in (False, True):
            yield open_timer(self.device, partial(record, apart=apart), before=self.copy_by_shader)
