"""Which calls the runtime gets wrong as a whole, on the shapes of a run, as the records' rules say."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import torch

from vkfuse.pte.vulkan import OperatorCall
from vkfuse.runtime.codes import Code
from vkfuse.runtime.operands import Operands, Tensor, Value
from vkfuse.runtime.operators import record_of
from vkfuse.verify.steps import Argument
from vkfuse.verify.vulkan.call import Call

_WRONG_AS_A_WHOLE: Final = frozenset(
    {
        Code.CONDITION_RANK,
        Code.CONVOLUTION_ARGUMENTS,
        Code.CONVOLUTION_GROUPS,
        Code.DIMENSION_FROM_THE_END,
        Code.LAYER_NORM_WIDTH,
        Code.NEAREST_BY_CENTRE,
        Code.NO_RESIZE,
        Code.PADDING_LOST,
        Code.ROWS_ACROSS_TEXELS,
        Code.ROWS_LEFT_OUT,
    }
)


def wrong_as_a_whole(
    operands: Operands, call: OperatorCall, state: Mapping[int, Argument], output: Argument
) -> Code | None:
    """Return why nothing of the result is right, None where it may be; `operands` are those of the file."""
    values = {
        name: _as_now(value, state.get(index))
        for (name, value), index in zip(operands.values.items(), call.args, strict=False)
    }
    now = replace(operands, values=values, output=_as_now(operands.output, output))
    record = record_of(operands.operator)
    if not record.resized and any(tensor.dynamic for tensor in now.tensors()):
        return Code.NO_RESIZE
    found = (objection.code for rule in record.rules for objection in rule(now))
    return next((code for code in found if code in _WRONG_AS_A_WHOLE), None)


def resized_in_turn(call: Call) -> tuple[int, ...]:
    """Return the sizes of a choice whose condition has fewer dimensions: impl/Where.cpp, resize_where_node.

    Sizes that are there stay in front when an operand has more of them.
    """
    sizes: list[int] = []
    for operand in (call.tensor(at) for at in range(3)):
        sizes += [1] * (operand.dim() - len(sizes))
        for at, size in enumerate(operand.shape, len(sizes) - operand.dim()):
            sizes[at] = max(sizes[at], size)
    return tuple(sizes)


def _as_now(value: Value, argument: Argument) -> Value:
    """A tensor of the file, dynamic along the axes where it is smaller now."""
    if not isinstance(value, Tensor) or not isinstance(argument, torch.Tensor) or value.constant:
        return value
    smaller = (
        at for at, (size, most) in enumerate(zip(argument.shape, value.dims, strict=False)) if size < most
    )
    return replace(value, dynamic=frozenset(smaller))
