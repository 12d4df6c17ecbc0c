"""What the benchmark looks up: random tables that take turns, an output and indices for each dispatch, bytes touched."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np

from vkfuse.glsl.geometry import Size3, Size4, global_size, local_size, output_sizes, work_groups
from vkfuse.glsl.layouts import Int32, Words, numpy_type
from vkfuse.glsl.operands import filled_buffer, indices_of, output_of, weight_of
from vkfuse.glsl.variants import ROWS_PER_BLOCK, VECTOR, DType, TensorStorage, Variant, WeightLayout
from vkfuse.glsl.vulkan.device import Device, DeviceInfo
from vkfuse.glsl.vulkan.memory import Resource
from vkfuse.multiples import ceil_div

TABLES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """One point of the benchmark: `tokens` rows of a table [vocab, embed_dim] in groups of `group_size`.

    The rows are random, `neighbours` at a time from blocks of 8 rows that follow each other.
    """

    tokens: int
    embed_dim: int
    vocab: int
    group_size: int
    neighbours: int = 1

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


def fits(info: DeviceInfo, variant: Variant, shape: Shape) -> bool:
    """Whether a device can hold a variant's operands at a shape, and has the features that it needs."""
    output = shape.tokens * shape.embed_dim * variant.dtype.nbytes
    blocks = ceil_div(shape.vocab, ROWS_PER_BLOCK)
    largest = max(
        shape.vocab * shape.embed_dim // 2, output if variant.storage is TensorStorage.BUFFER else 0
    )
    return (
        (info.storage_16bit or not variant.needs_16bit_storage)
        and (
            variant.storage is TensorStorage.BUFFER
            or max(shape.embed_dim // VECTOR, shape.tokens) <= info.max_image_3d
        )
        and (not variant.weight_is_texture or max(shape.embed_dim // VECTOR, blocks) <= info.max_image_2d)
        and largest <= info.max_storage_buffer_bytes
    )


DeviceTable = tuple[Resource, Resource]  # a packed weight and its scales


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Resources of each dispatch in binding order, and the bytes that one reads, on average."""

    dispatches: tuple[tuple[Resource, ...], ...]
    bytes_read: int


@contextmanager
def random_tables(
    device: Device, layout: WeightLayout, scales: DType, shape: Shape
) -> Iterator[tuple[DeviceTable, ...]]:
    """Tables of random bits, which in any layout are random values."""
    rng = np.random.default_rng(0)
    with ExitStack() as stack:
        tables = []
        for _ in range(TABLES):
            weight = weight_of(stack, device, layout, _random_words(layout, shape, rng))
            drawn = rng.random((shape.vocab, shape.embed_dim // shape.group_size), np.float32) / 64
            tables.append((weight, filled_buffer(stack, device, drawn.astype(numpy_type(scales)))))
        yield tuple(tables)


@contextmanager
def workload(
    device: Device, variant: Variant, shape: Shape, tables: Sequence[DeviceTable], dispatches: int
) -> Iterator[Workload]:
    """Operands of `dispatches` lookups, each with indices and an output of its own; the tables take turns."""
    rng = np.random.default_rng(1)
    rows = [random_rows(shape, rng) for _ in range(dispatches)]
    with ExitStack() as stack:
        sizes = filled_buffer(stack, device, np.array(shape.sizes, np.int32))
        resources = []
        for turn, indices in enumerate(rows):
            output = output_of(stack, device, variant, shape.sizes)
            asked = indices_of(stack, device, variant, indices)
            resources.append((output, asked, *tables[turn % len(tables)], sizes))
        read = np.mean([_bytes_read(variant, shape, indices) for indices in rows])
        yield Workload(dispatches=tuple(resources), bytes_read=int(read))


def random_rows(shape: Shape, rng: np.random.Generator) -> Int32:
    """Rows to look up [tokens]. From one multiple of `neighbours` blocks to the next, a row of each block in turn."""
    if shape.neighbours == 1:
        return rng.integers(0, shape.vocab, shape.tokens, np.int32)
    runs = ceil_div(shape.tokens, shape.neighbours)
    starts = rng.integers(0, shape.vocab // (ROWS_PER_BLOCK * shape.neighbours), runs) * shape.neighbours
    blocks = (starts[:, None] + np.arange(shape.neighbours)).reshape(-1)[: shape.tokens]
    return (blocks * ROWS_PER_BLOCK + rng.integers(0, ROWS_PER_BLOCK, shape.tokens)).astype(np.int32)


def _random_words(layout: WeightLayout, shape: Shape, rng: np.random.Generator) -> Words:
    if layout.is_linear:
        words = (ceil_div(shape.vocab, ROWS_PER_BLOCK), shape.embed_dim // VECTOR, 4)
    else:
        words = (shape.vocab, shape.embed_dim // 8, 1)
    return rng.integers(0, 1 << 32, words, np.uint32)


def _bytes_read(variant: Variant, shape: Shape, rows: Int32) -> int:
    """Bytes of the distinct rows (linear: whole blocks of 8, once each), their scales, and the indices."""
    distinct = np.unique(rows).size
    scales = distinct * (shape.embed_dim // shape.group_size) * variant.scales.nbytes
    row_bytes = shape.embed_dim // 2
    if variant.weight.is_linear:
        weight = np.unique(rows // ROWS_PER_BLOCK).size * ROWS_PER_BLOCK * row_bytes
    else:
        weight = distinct * row_bytes
    return int(weight + scales + rows.nbytes)
