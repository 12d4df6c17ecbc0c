"""Rules that several families of operators share."""

from collections.abc import Iterator
from typing import Final

from vkfuse.pte.enums import VkDataType
from vkfuse.runtime.codes import Code, Objection
from vkfuse.runtime.operands import Operands, Tensor
from vkfuse.runtime.record import Rule
from vkfuse.runtime.spelling import BY_WIDTH


def multiple(step: int, code: Code, argument: str, axis: int = -1, *, factor: int = 1) -> Rule:
    """Require the size of `argument` along `axis`, times `factor`, to be a multiple of `step`."""

    def rule(ops: Operands) -> Iterator[Objection]:
        tensor = ops.tensor(argument)
        if tensor and tensor.dims and tensor.dims[axis] * factor % step:
            detail = f"{tensor.dims[axis] * factor} along an axis of {argument}"
            yield Objection(code, detail)

    return rule


OUTPUT: Final = "out"


def one_type(*arguments: str) -> Rule:
    """Require tensors of one type, as shaders read all: OUTPUT is the output (measured: half scalars beside floats)."""

    def rule(ops: Operands) -> Iterator[Objection]:
        operands = (ops.out if name == OUTPUT else ops.tensor(name) for name in arguments)
        given = [tensor for tensor in operands if tensor]
        known = _IN_TEXTURES if all(tensor.in_texture for tensor in given) else _ON_THE_GPU
        types = {known.get(tensor.dtype, tensor.dtype).label for tensor in given}
        if len(types) > 1:
            yield Objection(Code.TYPES_NOT_PROMOTED, ", ".join(sorted(types)))

    return rule


def of_truths(*arguments: str) -> Rule:
    """Require bools: of bytes, bits are not what truth is made of, and a negation is one less them."""

    def rule(ops: Operands) -> Iterator[Objection]:
        given = (ops.tensor(name) for name in arguments)
        types = {tensor.dtype.label for tensor in given if tensor and tensor.dtype is not VkDataType.BOOL}
        if types:
            yield Objection(Code.INTEGER_ARITHMETIC, f"on {', '.join(sorted(types))}")

    return rule


_ON_THE_GPU: Final = {VkDataType.INT64: VkDataType.INT32, VkDataType.FLOAT64: VkDataType.FLOAT32}
_IN_TEXTURES: Final = {**_ON_THE_GPU, VkDataType.FLOAT16: VkDataType.FLOAT32}  # whose fetches give float32


def four_dimensions_in_buffers(ops: Operands) -> Iterator[Objection]:
    """api/containers/Tensor.h, get_uniform_data: a shader that is given sizes or their product takes four (measured)."""
    if ops.out and ops.out.in_buffer and len(ops.out.dims) > _MOST_SIZES:
        yield Objection(Code.MORE_THAN_4_DIMS, f"{list(ops.out.dims)}")


_MOST_SIZES: Final = 4


def one_matrix(code: Code) -> Rule:
    """Require `input` to be one matrix: no dimension before the last two but ones."""

    def rule(ops: Operands) -> Iterator[Objection]:
        tensor = ops.tensor("input")
        if tensor and tensor.matrices > 1:
            yield Objection(code, f"input {list(tensor.dims)}")

    return rule


def packed_by_width(code: Code, *arguments: str) -> Rule:
    """Require `arguments` that are no constants, and the output, to be packed by width; else `code`."""

    def rule(ops: Operands) -> Iterator[Objection]:
        if any(tensor.layout not in BY_WIDTH for tensor in (*_computed(ops, arguments), *ops.outs[:1])):
            yield Objection(code, "not packed by width")

    return rule


def no_texture_from_a_buffer(*arguments: str) -> Rule:
    """Require a texture to be made of `arguments` in textures: a product of others ends the process (measured)."""

    def rule(ops: Operands) -> Iterator[Objection]:
        if ops.out and ops.out.in_texture and any(of.in_buffer for of in _computed(ops, arguments)):
            yield Objection(Code.PACKED_OTHERWISE, "a texture from a buffer")

    return rule


def _computed(ops: Operands, arguments: tuple[str, ...]) -> list[Tensor]:
    """The arguments that are tensors and no constants."""
    return [of for name in arguments if (of := ops.tensor(name)) and not of.constant]


def group_multiple_of_4(ops: Operands) -> Iterator[Objection]:
    """glsl/embedding_q4gsw.glsl and the linears read one scale for 4 values (measured: 0.45-0.84 off)."""
    group = ops.integer("group_size")
    if group is not None and (group < 4 or group % 4):
        yield Objection(Code.GROUP_NOT_MULTIPLE_OF_4, f"groups of {group}")


def group_divides_columns(ops: Operands) -> Iterator[Objection]:
    """glsl/embedding_q4gsw.glsl: a row has D / group_size scales."""
    weight, group = ops.tensor("weight"), ops.integer("group_size")
    if weight and weight.dims and group and group > 0 and weight.dims[-1] * 2 % group:
        detail = f"{weight.dims[-1] * 2} columns in groups of {group}"
        yield Objection(Code.GROUP_DOES_NOT_DIVIDE_COLUMNS, detail)
