"""What is computed of constants alone becomes a constant: in a delegate that the runtime cannot run as it is."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np

from vkfuse.patch.graphs import GraphEdit
from vkfuse.patch.operations import operation_of
from vkfuse.pte.enums import ScalarType
from vkfuse.pte.model import BoxedIntList
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

    `known` are tensors of `values` by position; what is computed is for the caller to add.
    """

    def __init__(self, values: Sequence[object], known: Mapping[int, Array]) -> None:
        self._values, self._known = values, known
        self._left = sum(array.nbytes for array in known.values()) * _GROWTH + _LEAST_BYTES

    def arguments(self, ids: Iterable[int]) -> list[Any] | None:
        """Arguments as the operations take them; None where one is not known."""
        found = [self._argument(index) for index in ids]
        return None if any(argument is _UNKNOWN for argument in found) else found

    def _argument(self, index: int) -> Any:
        if index in self._known:
            return self._known[index]
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

    def computed(
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
        self.known: dict[int, Array] = {**dict(_constants(graph)), **given}
        self.made: set[int] = {*given}
        self._evaluation = Evaluation(graph.values, self.known)
        for call in graph.chain:
            self._follow(call)

    def _follow(self, call: OperatorCall) -> None:
        """Work out what a call makes."""
        index = call.args[-1] if call.args else -1
        out = self._graph.values[index] if index >= 0 else None
        if not isinstance(out, VkTensor) or index in self.known:
            return
        arguments = self._evaluation.arguments(call.args[:-1])
        if arguments is None:
            return
        if call.name == PREPACK:
            self.known[index] = arguments[0]
            self.made |= {index} if call.args[0] in self.made else set()
            return
        kind = out.dtype.scalar
        result = None if kind is None else self._evaluation.computed(call.name, arguments, kind, out.dims)
        if result is not None:
            self.known[index] = result
            self.made.add(index)

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


def _constants(graph: VulkanGraph) -> Iterator[tuple[int, Array]]:
    """Yield the constants whose bytes are in the file."""
    for index, value in enumerate(graph.values):
        if isinstance(value, VkTensor) and value.constant and value.data is not None:
            kind = value.dtype.scalar
            stored = None if kind is None else numbers(value.data, kind, value.dims)
            if stored is not None:
                yield index, stored.rows(0, value.dims[0]) if value.dims else stored.stored
