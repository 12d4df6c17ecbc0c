"""The operands of a written file's calls, as the runtime's records know them by name."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from vkfuse.pte.delegates import VulkanDelegate
from vkfuse.pte.values import Bool, BoolList, Double, DoubleList, Int, String
from vkfuse.pte.vulkan import IntList, OperatorCall, SymInt, ValueList, VkTensor, VkValue
from vkfuse.runtime.operands import Operands, Symbol, Tensor, Value
from vkfuse.runtime.operators import record_of

_STATIC: Final[Mapping[int, frozenset[int]]] = MappingProxyType({})


class Reader:
    """Reads the values of one delegate, each once; `dynamic` are the axes that may be shorter, by value."""

    def __init__(self, delegate: VulkanDelegate, dynamic: Mapping[int, frozenset[int]] = _STATIC) -> None:
        self._delegate, self._dynamic = delegate, dynamic
        self._known: dict[int, Value] = {}

    def operands(self, call: OperatorCall) -> Operands:
        """Return the operands of a call: the schema's arguments in order, then the output."""
        record = record_of(call.name)
        arguments = {record.argument(at): self._value(index) for at, index in enumerate(call.args[:-1])}
        output = self._value(call.args[-1]) if call.args else None
        return Operands(operator=call.name, values=arguments, output=output)

    def tensors(self, ids: tuple[int, ...]) -> list[Tensor]:
        """Return the values that are tensors."""
        return [value for index in ids if isinstance(value := self._value(index), Tensor)]

    def _value(self, index: int) -> Value:
        if index not in self._known:
            self._known[index] = self._read(index, self._delegate.graph.values[index])
        return self._known[index]

    def _read(self, index: int, value: VkValue) -> Value:
        match value:
            case Int() | Bool() | Double() | String():
                return value.value
            case IntList() | DoubleList() | BoolList():
                return tuple(value.items)
            case SymInt():
                return Symbol()
            case ValueList():
                return tuple(self._member(index) for index in value.ids)
            case VkTensor():
                return self._tensor(index, value)
        return None

    def _member(self, index: int) -> Value:
        """Read a member of a list; a list of lists, which only a broken file has, ends here."""
        value = self._delegate.graph.values[index]
        return None if isinstance(value, ValueList) else self._read(index, value)

    def _tensor(self, index: int, tensor: VkTensor) -> Tensor:
        return Tensor(
            dims=tensor.dims,
            dtype=tensor.dtype,
            constant=tensor.constant,
            storages=frozenset({self._delegate.storage(tensor)}),
            layout=tensor.layout,
            dynamic=self._dynamic.get(index, frozenset()),
            staging=tensor.staging_dtype,
        )


def operands_of(delegate: VulkanDelegate, call: OperatorCall) -> Operands:
    """Return the operands of one call."""
    return Reader(delegate).operands(call)
