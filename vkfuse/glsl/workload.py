"""What the benchmark looks up: random tables that take turns, an output and indices for each dispatch, bytes touched."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vkfuse.glsl.geometry import Size3, Size4, global_size, local_size, output_sizes, work_groups
from vkfuse.glsl.layouts import ROWS_PER_BLOCK, Int32, numpy_type
from vkfuse.glsl.operands import filled_buffer, indices_of, output_of, weight_of
from vkfuse.glsl.variants import VECTOR, Variant, WeightLayout
from vkfuse.glsl.vulkan.device import Device
from vkfuse.glsl.vulkan.memory import Resource

TABLES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """One point of the benchmark: `tokens` rows of a table [vocab, embed_dim] in groups of `group_size`."""

    tokens: int
    embed_dim: int
    vocab: int
    group_size: int

    @property
    def sizes(self) -> Size4:
        """Sizes of the output in WHCN order."""
        return output_sizes((self.tokens,), self.embed_dim)

    @property
    def local(self) -> Size3:
        """The runtime's local size."""
        return local_size(global_size(self.sizes))

    @property
    def groups(self) -> Size3:
        """Work groups of one dispatch."""
        return work_groups(global_size(self.sizes), self.local)


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """Bytes of one dispatch: `written`, and `read` as the layout makes it (linear: whole blocks of 8 rows, once each)."""

    read: int
    written: int

    @property
    def total(self) -> int:
        """Bytes read and written."""
        return self.read + self.written


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Resources of each dispatch in binding order, and the mean traffic of one."""

    shape: Shape
    dispatches: tuple[tuple[Resource, ...], ...]
    traffic: Traffic


@contextmanager
def workload(device: Device, variant: Variant, shape: Shape, dispatches: int, seed: int = 0) -> Iterator[Workload]:
    """Random operands for `dispatches` lookups, each with indices and an output of its own, over TABLES tables."""
    rng = np.random.default_rng(seed)
    with ExitStack() as stack:

        def keep(resource: Resource) -> Resource:
            stack.callback(resource.free)
            return resource

        sizes = keep(filled_buffer(device, np.array(shape.sizes, np.int32)))
        tables = [
            (keep(_weight(device, variant.weight, shape, rng)), keep(_scales(device, variant, shape, rng)))
            for _ in range(min(TABLES, dispatches))
        ]
        indices = [rng.integers(0, shape.vocab, shape.tokens).astype(np.int32) for _ in range(dispatches)]
        resources = tuple(
            (
                keep(output_of(device, variant, shape.sizes)),
                keep(indices_of(device, variant, rows)),
                *tables[turn % len(tables)],
                sizes,
            )
            for turn, rows in enumerate(indices)
        )
        mean = np.mean([_bytes_read(variant, shape, rows) for rows in indices])
        written = shape.tokens * shape.embed_dim * variant.dtype.nbytes
        traffic = Traffic(read=int(mean), written=written)
        yield Workload(shape=shape, dispatches=resources, traffic=traffic)


def _weight(device: Device, layout: WeightLayout, shape: Shape, rng: np.random.Generator) -> Resource:
    """A table of random bits, which is a table of random values in any layout."""
    if layout.is_linear:
        words = (-(-shape.vocab // ROWS_PER_BLOCK), shape.embed_dim // VECTOR, 4)
    else:
        words = (shape.vocab, shape.embed_dim // 8, 1)
    return weight_of(device, layout, rng.integers(0, 1 << 32, words, np.uint32))


def _scales(device: Device, variant: Variant, shape: Shape, rng: np.random.Generator) -> Resource:
    groups = (shape.vocab, shape.embed_dim // shape.group_size)
    scales: npt.NDArray[np.float32] = rng.random(groups, np.float32) / 64
    return filled_buffer(device, scales.astype(numpy_type(variant.scales)))


def _bytes_read(variant: Variant, shape: Shape, rows: Int32) -> int:
    """Bytes of the distinct rows (or blocks), their scales, and the indices."""
    distinct = np.unique(rows).size
    scales = distinct * (shape.embed_dim // shape.group_size) * variant.scales.nbytes
    row_bytes = shape.embed_dim // 2
    if variant.weight.is_linear:
        weight = np.unique(rows // ROWS_PER_BLOCK).size * ROWS_PER_BLOCK * row_bytes
    else:
        weight = distinct * row_bytes
    return int(weight + scales + rows.nbytes)
