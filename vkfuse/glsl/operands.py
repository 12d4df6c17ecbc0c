"""One lookup on a device: upload, dispatch by the runtime's rules, read back."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vkfuse.glsl.geometry import Size3, Size4, global_size, output_sizes, work_groups
from vkfuse.glsl.layouts import (
    Int8,
    Int32,
    index_texels,
    numpy_type,
    pack_weight,
    padded_bytes,
)
from vkfuse.glsl.variants import VECTOR, DType, TensorStorage, Variant, WeightLayout
from vkfuse.glsl.vulkan.device import Device
from vkfuse.glsl.vulkan.memory import (
    Array,
    Buffer,
    Resource,
    Texel,
    create_buffer,
    create_image,
    download,
    upload,
)
from vkfuse.glsl.vulkan.pipeline import Pipeline

GUARD_BYTES = 256  # behind a buffer output, not bound: a store past the end lands here
POISON = 0xFD  # fills outputs before a run; no result of a lookup has these bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookup:
    """One call of the operator: values int8 [V, D] in -8..7, scales [V, D/group_size], int32 indices."""

    values: Int8
    scales: npt.NDArray[Any]
    group_size: int
    indices: Int32

    @property
    def sizes(self) -> Size4:
        """Sizes of the output in WHCN order."""
        return output_sizes(self.indices.shape, self.values.shape[1])


def looked_up(
    pipeline: Pipeline, variant: Variant, lookup: Lookup, local: Size3
) -> tuple[npt.NDArray[Any], bool]:
    """The output of one dispatch as the runtime would make it, and whether the bytes behind it are untouched."""
    groups = work_groups(global_size(lookup.sizes), local)
    push = variant.push_constants(lookup.group_size)
    with operands(pipeline.device, variant, lookup) as resources:
        descriptors = pipeline.bind(resources)
        pipeline.device.submit(lambda commands: pipeline.record(commands, descriptors, push, groups))
        return read_output(resources[0], variant, lookup)


@contextmanager
def operands(device: Device, variant: Variant, lookup: Lookup) -> Iterator[tuple[Resource, ...]]:
    """Out, indices, weight, scales and sizes on the device, in binding order; the output is poisoned."""
    with ExitStack() as scope:
        output = output_of(scope, device, variant, lookup.sizes, guard=GUARD_BYTES)
        poison(output)
        yield (
            output,
            indices_of(scope, device, variant, lookup.indices),
            weight_of(scope, device, variant.weight, pack_weight(lookup.values, variant.weight)),
            filled_buffer(scope, device, lookup.scales.astype(numpy_type(variant.scales))),
            filled_buffer(scope, device, np.array(lookup.sizes, np.int32)),
        )


def output_of(
    scope: ExitStack, device: Device, variant: Variant, sizes: Size4, *, guard: int = 0
) -> Resource:
    """An output for `sizes` in the variant's storage; a buffer has `guard` bytes behind it, which are not bound."""
    width, height, depth = sizes[0] // VECTOR, max(1, sizes[1]), max(1, sizes[2] * sizes[3])
    texel = Texel.FLOAT16 if variant.dtype is DType.HALF else Texel.FLOAT32
    if variant.storage is TensorStorage.TEXTURE3D:
        return create_image(scope, device, (width, height, depth), texel, dimensions=3)
    buffer = create_buffer(scope, device, width * height * depth * texel.nbytes + guard)
    buffer.nbytes -= guard
    return buffer


def poison(output: Resource) -> None:
    """Fill an output, and the guard behind a buffer, with bytes that no lookup gives."""
    guard = GUARD_BYTES if isinstance(output, Buffer) else 0
    upload(output, np.full(output.nbytes + guard, POISON, np.uint8))


def weight_of(
    scope: ExitStack, device: Device, layout: WeightLayout, words: npt.NDArray[np.uint32]
) -> Resource:
    """The packed weight as the runtime would hold it."""
    if layout is not WeightLayout.LINEAR_TEXTURE2D:
        return filled_buffer(scope, device, words)
    height, width, _ = words.shape
    image = create_image(scope, device, (width, height, 1), Texel.INT32, dimensions=2)
    upload(image, words)
    return image


def filled_buffer(scope: ExitStack, device: Device, data: Array) -> Resource:
    """A buffer with `data`, rounded up as the runtime does; the filling is not zero."""
    raw = padded_bytes(data)
    buffer = create_buffer(scope, device, raw.size)
    upload(buffer, raw)
    return buffer


def indices_of(scope: ExitStack, device: Device, variant: Variant, indices: Int32) -> Resource:
    """The indices in the storage of the graph: a buffer, or a 3-D texture of four a texel."""
    if variant.storage is TensorStorage.BUFFER:
        return filled_buffer(scope, device, indices)
    texels = index_texels(indices)
    depth, height, width, _ = texels.shape
    image = create_image(scope, device, (width, height, depth), Texel.INT32, dimensions=3)
    upload(image, texels)
    return image


def read_output(output: Resource, variant: Variant, lookup: Lookup) -> tuple[npt.NDArray[Any], bool]:
    """The output [*indices.shape, D], and whether the guard behind it is as it was."""
    shape = (*lookup.indices.shape, lookup.values.shape[1])
    count = int(np.prod(shape)) * variant.dtype.nbytes
    if variant.storage is TensorStorage.TEXTURE3D:
        raw, intact = download(output), True
    else:
        raw = download(output, output.nbytes + GUARD_BYTES)
        intact = bool(np.all(raw[output.nbytes :] == POISON))
    return raw[:count].view(numpy_type(variant.dtype)).reshape(shape), intact
