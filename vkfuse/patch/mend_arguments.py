"""Operators and arguments that the runtime lacks, and that others express."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from vkfuse.patch.faulty import Fault, Faulty, mends
from vkfuse.pte.enums import VkDataType
from vkfuse.pte.values import BoolList, DoubleList, Int
from vkfuse.pte.vulkan import IntList, OperatorCall, VkTensor
from vkfuse.runtime.codes import Code
from vkfuse.runtime.spelling import FLOATS

_NOT: Final = "aten.logical_not.default"
_NOT_OF_BITS: Final = "aten.bitwise_not.default"
_NORM: Final = "aten.native_layer_norm.default"
_NORM_ARGUMENTS: Final = 6  # with the outputs
_POOL_ARGUMENTS: Final = 5
_LISTS: Final = (IntList, BoolList, DoubleList)  # the type of an empty list says nothing
_POOLS: Final = frozenset({"aten.avg_pool2d.default", "aten.max_pool2d.default"})


@mends(Code.NOT_REGISTERED, code="negation-of-bits")
def negate_bits(faulty: Faulty, fault: Fault) -> Sequence[OperatorCall]:
    """The negation of bits, which of a bool is that of its value (unary_op.yaml: ``1 - X``)."""
    source = faulty.graph.values[fault.call.args[0]]
    if fault.call.name != _NOT or not isinstance(source, VkTensor) or source.dtype is not VkDataType.BOOL:
        return ()
    return (replace(fault.call, name=_NOT_OF_BITS),)


@mends(Code.LAYER_NORM_WITHOUT_BIAS, code="layer-norm-completed")
def complete_layer_norms(faulty: Faulty, fault: Fault) -> Sequence[OperatorCall]:
    """A layer norm with a bias of zeros, as many as it has weights."""
    args = fault.call.args
    weight = (
        faulty.graph.values[args[2]] if fault.call.name == _NORM and len(args) == _NORM_ARGUMENTS else None
    )
    if not isinstance(weight, VkTensor) or weight.data is None or weight.dtype not in FLOATS:
        return ()
    zeros = faulty.edit.constant(np.zeros(weight.dims, weight.dtype.label))
    return (replace(fault.call, args=(*args[:3], zeros, *args[4:])),)


@mends(Code.DIMENSION_FROM_THE_END, code="dimension-from-the-front")
def count_from_the_front(faulty: Faulty, fault: Fault) -> Sequence[OperatorCall]:
    """A gather along the same dimension, counted from the first."""
    args, values = fault.call.args, faulty.graph.values
    source, dim = values[args[0]], values[args[1]]
    if not isinstance(source, VkTensor) or not isinstance(dim, Int):
        return ()
    front = faulty.edit.value(Int(dim.value + len(source.dims)))
    return (replace(fault.call, args=(args[0], front, *args[2:])),)


@mends(Code.POOL_ARGUMENTS, code="stride-given")
def give_strides(faulty: Faulty, fault: Fault) -> Sequence[OperatorCall]:
    """A pool whose stride is its window, which is what an empty one means."""
    args = fault.call.args
    if fault.call.name not in _POOLS or len(args) < _POOL_ARGUMENTS:
        return ()
    stride = faulty.graph.values[args[2]]
    empty = stride is None or (isinstance(stride, _LISTS) and not stride.items)
    return (replace(fault.call, args=(*args[:2], args[1], *args[3:])),) if empty else ()
