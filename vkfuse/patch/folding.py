"""What is computed of constants alone becomes a constant: in a delegate that the runtime cannot run as it is.

Operators of delegates and CPU kernels of the method around them are computed alike.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from vkfuse.patch.faulty import Faulty, Mend
from vkfuse.patch.graphs import GraphEdit
from vkfuse.patch.operations import operation_of
from vkfuse.pte.enums import ScalarType
from vkfuse.pte.model import BoxedIntList, KernelCall, Method, Tensor
from vkfuse.pte.values import Bool, BoolList, Double, DoubleList, Int, String
from vkfuse.pte.vulkan import IntList, OperatorCall, ValueList, VkTensor, VulkanGraph
from vkfuse.runtime.operators import record_of
from vkfuse.runtime.operators.moves import PREPACK
from vkfuse.tables.floats import Array, numbers, rounded

_GROWTH: Final = 32  # bytes of results for each byte of constants: 4 bits become 64
_LEAST_BYTES: Final = 1 << 20
_UNKNOWN: Final = object()


class Evaluation:
    """Computes what operators make of constants, as much as a file with so many bytes of them can honestly want.

    `known` are tensors of `values` by position: constants, those that are `given`, and what is computed.
    """

    def __init__(self, values: Sequence[object], given: Mapping[int, Array] = MappingProxyType({})) -> None:
        self._values = values
        stored = ((index, _stored(value)) for index, value in enumerate(values))
        self.known = {**{index: array for index, array in stored if array is not None}, **given}
        self._left = sum(array.nbytes for array in self.known.values()) * _GROWTH + _LEAST_BYTES

    def follow(self, name: str, ids: Iterable[int], out: int) -> bool:
        """Compute what an operator writes to a tensor; whether it is known now, and was not."""
        described, arguments = _described(self._values[out]), [self._argument(index) for index in ids]
        if described is None or out in self.known or any(of is _UNKNOWN for of in arguments):
            return False
        result = self._computed(name, arguments, *described)
        if result is not None:
            self.known[out] = result
        return result is not None

    def _argument(self, index: int) -> Any:
        if index in self.known:
            return self.known[index]
        match self._values[index]:
            case None:
                return None
            case Int() | Bool() | Double() | String() as scalar:
                return scalar.value
            case IntList() | DoubleList() | BoolList() as items:
                return tuple(items.items)
            case BoxedIntList() as boxed:
                members = [self._values[at] for at in boxed.ids]
                if all(isinstance(member, Int) for member in members):
                    return tuple(member.value for member in members if isinstance(member, Int))
        return _UNKNOWN

    def _computed(
        self, name: str, arguments: Iterable[Any], kind: ScalarType, sizes: tuple[int, ...]
    ) -> Array | None:
        """The result, of the type and sizes that the file says; None where it is not known."""
        operation, size = operation_of(name), math.prod(sizes) * kind.bytes
        if operation is None or kind is ScalarType.BFLOAT16 or size > self._left:
            return None
        self._left -= size
        try:
            with np.errstate(all="ignore"):
                result = operation(*arguments)
                return np.ascontiguousarray(rounded(result, kind)) if result.shape == sizes else None
        except (AttributeError, IndexError, OverflowError, TypeError, ValueError):  # whatever a file says
            return None


class Folding:
    """The tensors of a graph that depend on no input; `given` are inputs that are constants themselves."""

    def __init__(self, graph: VulkanGraph, given: Mapping[int, Array]) -> None:
        self._graph = graph
        self._copies = {call.args[1]: call.args[0] for call in graph.chain if _copies(call)}
        self.made: set[int] = {*given}
        self._evaluation = Evaluation(graph.values, given)
        self.known = self._evaluation.known
        for call in graph.chain:
            if call.args:
                self._follow(call.name, *call.args)

    def _follow(self, name: str, *args: int) -> None:
        """Work out what a call makes."""
        *ids, out = args
        if name != PREPACK:
            self.made |= {out} if self._evaluation.follow(name, ids, out) else set()
        elif ids and ids[0] in self.known and out not in self.known:
            self.known[out] = self.known[ids[0]]
            self.made |= {out} if ids[0] in self.made else set()

    def serves(self, call: OperatorCall) -> bool:
        """Whether a call is no longer made, or reads something as a constant that was none."""
        record = record_of(call.name)
        wanted = {
            index
            for at, index in enumerate(call.args[:-1])
            if record.argument(at) in record.constants.split()
        }
        return bool(self.made & {*call.args}) or any(index in self._copies for index in wanted)

    def apply(self, edit: GraphEdit) -> bool:
        """Let the calls that are left read constants; whether there was anything to do."""
        if self.made & {*self._graph.output_ids}:
            return False
        changed = False
        for position, call in enumerate(self._graph.chain):
            if call.args and call.args[-1] in self.known:
                if call.name != PREPACK:
                    edit.instead(position, ())
                continue
            args = (*self._arguments(call, edit), *call.args[-1:])
            if args != call.args:
                edit.instead(position, [edit.call(call.name, *args)])
                changed = True
        edit.inputs = [index for index in edit.inputs if index not in self.made]
        return changed

    def _arguments(self, call: OperatorCall, edit: GraphEdit) -> Iterator[int]:
        """The arguments of a call that stays, with constants for what was computed."""
        record = record_of(call.name)
        constants = record.constants.split()
        for position, index in enumerate(call.args[:-1]):
            value = self._graph.values[index]
            if isinstance(value, ValueList):
                yield self._members(value, index, edit)
            elif record.argument(position) in constants:
                yield self._constant(index, edit)
            else:
                yield self._tensor(index, edit)

    def _constant(self, index: int, edit: GraphEdit) -> int:
        """A value as a constant, where it is one."""
        if index in self.made:
            return edit.constant(self.known[index])
        return self._copies.get(index, index) if index in self.known else index

    def _tensor(self, index: int, edit: GraphEdit) -> int:
        """A value as a tensor, which a constant is once it was copied."""
        return edit.copied(edit.constant(self.known[index]), index) if index in self.made else index

    def _members(self, value: ValueList, index: int, edit: GraphEdit) -> int:
        if not self.made & {*value.ids}:
            return index
        return edit.value(ValueList(tuple(self._tensor(at, edit) for at in value.ids)))


def _copies(call: OperatorCall) -> bool:
    return call.name == PREPACK and len(call.args) > 1


def known_values(method: Method) -> Mapping[int, Array]:
    """The tensors of a method that are constants, and those that one CPU kernel computes of them."""
    evaluation = Evaluation(method.values)
    calls = [entry for entry in method.instructions if isinstance(entry, KernelCall) and entry.args]
    written = Counter(call.args[-1] for call in calls)
    for call in calls:
        ids, out = call.args[: call.args.index(call.args[-1])], call.args[-1]
        if written[out] == 1:
            evaluation.follow(method.operators[call.op_index].full_name, ids, out)
    return evaluation.known


def _described(value: object) -> tuple[ScalarType, tuple[int, ...]] | None:
    """Type and sizes of a tensor of a method or of a graph."""
    if isinstance(value, Tensor):
        return value.scalar_type, value.sizes
    kind = value.dtype.scalar if isinstance(value, VkTensor) else None
    return None if kind is None or not isinstance(value, VkTensor) else (kind, value.dims)


def _stored(value: object) -> Array | None:
    """The numbers of a constant whose bytes are in the file; bfloat16 is not computed with."""
    described = _described(value)
    if described is None or not isinstance(value, Tensor | VkTensor) or not value.constant:
        return None
    order = value.dim_order if isinstance(value, Tensor) else None
    found = None if value.data is None else numbers(value.data, *described, order)
    return None if found is None or found.kind is ScalarType.BFLOAT16 else found.stored


def fold_constants(faulty: Faulty) -> Iterator[Mend]:
    """Compute all that a delegate makes of constants, where that serves one of its faults."""
    calls = faulty.calls()
    if len(calls) != 1:
        return
    ((number, call),) = calls
    known = known_values(faulty.method.method)
    given = {
        inside: known[outside]
        for inside, outside in zip(faulty.graph.input_ids, call.args, strict=False)
        if outside in known
    }
    folding = Folding(faulty.graph, given)
    served = [fault.call.name for fault in faulty.faults if folding.serves(fault.call)]
    if served and folding.apply(faulty.edit):
        inputs = faulty.graph.input_ids
        kept = [arg for at, arg in enumerate(call.args) if at >= len(inputs) or inputs[at] not in given]
        faulty.method.rewire(number, tuple(kept))
        faulty.method.drop_unread(known)
        yield Mend(
            code="constants-folded", where=faulty.place, detail=f"for {', '.join(dict.fromkeys(served))}"
        )
