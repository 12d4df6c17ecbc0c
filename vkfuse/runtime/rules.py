"""Rules that several families of operators share."""

from collections.abc import Iterator

from vkfuse.runtime.codes import Code, Objection
from vkfuse.runtime.operands import Operands
from vkfuse.runtime.record import Rule


def multiple(step: int, code: Code, argument: str, axis: int = -1, *, factor: int = 1) -> Rule:
    """Require the size of `argument` along `axis`, times `factor`, to be a multiple of `step`."""

    def rule(ops: Operands) -> Iterator[Objection]:
        tensor = ops.tensor(argument)
        if tensor and tensor.dims and tensor.dims[axis] * factor % step:
            detail = f"{tensor.dims[axis] * factor} along an axis of {argument}"
            yield Objection(code, detail)

    return rule


def one_matrix(code: Code, argument: str) -> Rule:
    """Require `argument` to be one matrix: no dimension before the last two but ones."""

    def rule(ops: Operands) -> Iterator[Objection]:
        tensor = ops.tensor(argument)
        if tensor and tensor.matrices > 1:
            yield Objection(code, f"{argument} {list(tensor.dims)}")

    return rule


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
