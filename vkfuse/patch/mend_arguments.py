"""Operators and arguments that the runtime lacks, and that others express."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from vkfuse.patch.faulty import Fault, Faulty, Mend
from vkfuse.pte.enums import VkDataType
from vkfuse.pte.values import BoolList, DoubleList
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


def say_otherwise(faulty: Faulty) -> Iterator[Mend]:
    """Put another call with the same result in the place of one that the runtime has not."""
    for fault in faulty.faults:
        for form in _OTHERWISE:
            call = form.made(faulty, fault) if form.fault in fault.codes else None
            if call is not None:
                yield faulty.mended(fault, [call], code=form.code)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Otherwise:
    """What mends a fault: the mend's `code`, and the call in the other form, None where it is not for that."""

    code: str
    fault: Code
    made: Callable[[Faulty, Fault], OperatorCall | None]


def _negated(faulty: Faulty, fault: Fault) -> OperatorCall | None:
    """The negation of bits, which of a bool is that of its value (unary_op.yaml: ``1 - X``)."""
    source = faulty.graph.values[fault.call.args[0]]
    if fault.call.name != _NOT or not isinstance(source, VkTensor) or source.dtype is not VkDataType.BOOL:
        return None
    return replace(fault.call, name=_NOT_OF_BITS)


def _with_bias(faulty: Faulty, fault: Fault) -> OperatorCall | None:
    """A layer norm with a bias of zeros, as many as it has weights."""
    args = fault.call.args
    weight = (
        faulty.graph.values[args[2]] if fault.call.name == _NORM and len(args) == _NORM_ARGUMENTS else None
    )
    if not isinstance(weight, VkTensor) or weight.data is None or weight.dtype not in FLOATS:
        return None
    zeros = faulty.edit.constant(np.zeros(weight.dims, weight.dtype.label))
    return replace(fault.call, args=(*args[:3], zeros, *args[4:]))


def _with_stride(faulty: Faulty, fault: Fault) -> OperatorCall | None:
    """A pool whose stride is its window, which is what an empty one means."""
    args = fault.call.args
    if fault.call.name not in _POOLS or len(args) < _POOL_ARGUMENTS:
        return None
    stride = faulty.graph.values[args[2]]
    empty = stride is None or (isinstance(stride, _LISTS) and not stride.items)
    return replace(fault.call, args=(*args[:2], args[1], *args[3:])) if empty else None


_OTHERWISE: Final = (
    _Otherwise(code="negation-of-bits", fault=Code.NOT_REGISTERED, made=_negated),
    _Otherwise(code="layer-norm-completed", fault=Code.LAYER_NORM_WITHOUT_BIAS, made=_with_bias),
    _Otherwise(code="stride-given", fault=Code.POOL_ARGUMENTS, made=_with_stride),
)
