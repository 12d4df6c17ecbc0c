"""May a call be delegated, would it load, would it be right: answered from the operator's record."""

import sys
from collections.abc import Iterable, Iterator
from math import prod

from vkfuse.pte.enums import VkDataType
from vkfuse.runtime.codes import Code, Objection
from vkfuse.runtime.operands import Operands, Tensor
from vkfuse.runtime.operators import record_of
from vkfuse.runtime.packing import in_texture, packed_axis
from vkfuse.runtime.record import Operator
from vkfuse.runtime.versions import Runtime

MAX_DIMENSIONS = 4
_INTEGERS = frozenset(
    {VkDataType.BOOL, VkDataType.UINT8, VkDataType.INT8, VkDataType.INT32, VkDataType.INT64}
)


def judge(ops: Operands, runtime: Runtime) -> tuple[Objection, ...]:
    """Return what `runtime` fails on or does otherwise, notes too, in a call on the device of `ops`.

    Where storages are open, what holds for every one that they may have.
    """
    record = record_of(ops.operator, runtime.key)
    absent = () if record.name in runtime.operators else (_not_registered(record.name, runtime),)
    if absent and not record.replaced:
        return absent
    objections = [tuple(dict.fromkeys(_of_operator(record, each, runtime))) for each in ops.decided()]
    common = (o for o in objections[0] if all(_has(others, o) for others in objections[1:]))
    return (*absent, *_of_any(record, ops), *common)


def missing(names: Iterable[str], runtime: Runtime) -> Iterator[Objection]:
    """Yield the shaders that a runtime lacks; nothing where its shaders are not known."""
    if runtime.shaders is None:
        return
    for name in names:
        if name not in runtime.shaders:
            yield Objection(Code.NO_SHADER, name)


def _not_registered(name: str, runtime: Runtime) -> Objection:
    return Objection(Code.NOT_REGISTERED, f"the Vulkan runtime {runtime.version} has no {name}")


def _of_any(record: Operator, ops: Operands) -> Iterator[Objection]:
    tensors = tuple(ops.tensors())
    computed = [tensor for tensor in tensors if not (record.compares and tensor is ops.out)]
    integers = {tensor.dtype.label for tensor in computed if tensor.dtype in _INTEGERS}
    if integers and not record.integers:
        yield Objection(Code.INTEGER_ARITHMETIC, f"on {', '.join(sorted(integers))}")
    for tensor in tensors:
        if len(tensor.dims) > MAX_DIMENSIONS and not tensor.in_buffer:
            yield Objection(Code.MORE_THAN_4_DIMS, f"{list(tensor.dims)}")
        yield from beyond_textures(tensor)
        values = prod(tensor.dims)
        if ops.device.buffer < values < sys.maxsize and not (tensor.constant or tensor.in_texture):
            yield Objection(Code.BEYOND_LARGEST_BUFFER, f"{values:,} values of {list(tensor.dims)}")
    if any(0 in tensor.dims for tensor in tensors):
        yield Objection(Code.EMPTY_TENSOR, "a tensor without elements")
    if not record.resized and any(tensor.dynamic for tensor in tensors):
        yield Objection(Code.NO_RESIZE, "of a dynamic dimension")


def beyond_textures(tensor: Tensor) -> Iterator[Objection]:
    """Yield an objection to a tensor that is surely a texture and larger than one; constants are packed otherwise."""
    if tensor.in_texture and not tensor.constant and not in_texture(tensor.dims, packed_axis(tensor)):
        yield Objection(Code.BEYOND_LARGEST_TEXTURE, f"{list(tensor.dims)}")


def _of_operator(record: Operator, ops: Operands, runtime: Runtime) -> Iterator[Objection]:
    for name in record.constants.split():
        tensor = ops.tensor(name)
        if tensor and not tensor.constant:
            yield Objection(Code.NOT_A_CONSTANT, f"argument {name}")
    if record.shaders:
        yield from missing(record.shaders(ops), runtime)
    for rule in record.rules:
        yield from rule(ops)


def _has(objections: tuple[Objection, ...], one: Objection) -> bool:
    """Whether an objection holds in another storage too, whatever its shader is called there."""
    return any(other.code is one.code for other in objections)
