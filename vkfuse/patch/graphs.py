"""A Vulkan graph that is being edited: values and constants are added, calls replaced, and what none reads goes."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np

from vkfuse.pte.enums import VkDataType
from vkfuse.pte.vulkan import NAMED, Constant, OperatorCall, ValueList, VkTensor, VkValue, VulkanGraph
from vkfuse.runtime.operators.moves import PREPACK
from vkfuse.tables.floats import Array, kind_of

_TYPES: Final = {kind.scalar: kind for kind in VkDataType}


class GraphEdit:
    """Edits of one graph; `graph()` is the result, `named` the named data that its new constants stand for."""

    def __init__(self, graph: VulkanGraph | None = None) -> None:
        self._graph = graph = graph or VulkanGraph()
        self._values: list[VkValue] = list(graph.values)
        self._constants = list(graph.constants)
        self._known: dict[tuple[object, ...], int] = {}
        self._node = max((call.node_id for call in graph.chain), default=-1)
        self._front: list[OperatorCall] = []
        self._instead: dict[int, tuple[OperatorCall, ...]] = {}
        self.inputs = list(graph.input_ids)
        self.outputs = list(graph.output_ids)
        self.named: dict[str, memoryview] = {}

    def value(self, value: VkValue) -> int:
        """Add a value."""
        self._values.append(value)
        return len(self._values) - 1

    def at(self, index: int) -> VkValue:
        """Return a value."""
        return self._values[index]

    def tensor_at(self, index: int) -> VkTensor:
        """Return a tensor. TypeError for another value, which the survey let pass."""
        value = self._values[index]
        if not isinstance(value, VkTensor):
            raise TypeError(f"value {index} is no tensor")
        return value

    def tensor(self, like: VkTensor, **changes: Any) -> int:
        """Add a tensor of a memory of its own, like another but for `changes`; it crosses the border as it is."""
        made = replace(like, constant_id=-1, mem_obj_id=-1, data=None, **changes)
        return self.value(replace(made, staging_dtype=made.dtype))

    def given(self, index: int) -> None:
        """Let the caller fill a tensor of the graph, in a memory of its own, which is not handed out."""
        value = self.tensor_at(index)
        self._values[index] = replace(value, mem_obj_id=-1, staging_dtype=value.dtype)
        self.inputs.append(index)
        self.outputs = [out for out in self.outputs if out != index]

    def constant(self, array: Array) -> int:
        """Add a constant, stored under the SHA-256 of its bytes as ExecuTorch does; an equal one is the same value."""
        data = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
        key = hashlib.sha256(data).hexdigest()
        known = (key, array.dtype, array.shape)
        if known not in self._known:
            self.named[key] = data
            self._constants.append(
                Constant(offset=NAMED, length=len(data), named_key=key, data=data, at=None)
            )
            self._known[known] = self.value(
                VkTensor(
                    dtype=(kind := _TYPES[kind_of(array)]),
                    dims=array.shape,
                    constant_id=len(self._constants) - 1,
                    staging_dtype=kind,
                    data=data,
                )
            )
        return self._known[known]

    def copied(self, constant: int, like: int) -> int:
        """Add a tensor like another one, which a constant is copied to when the graph is loaded."""
        known = ("copied", constant, like)
        if known not in self._known:
            self._known[known] = self.tensor(self.tensor_at(like))
            self.in_front([self.call(PREPACK, constant, self._known[known])])
        return self._known[known]

    def call(self, name: str, *args: int) -> OperatorCall:
        """Make a call with a number of its own."""
        self._node += 1
        return OperatorCall(node_id=self._node, name=name, args=args)

    def in_front(self, calls: Iterable[OperatorCall]) -> None:
        """Let calls run before all others of the graph."""
        self._front.extend(calls)

    def instead(self, position: int, calls: Iterable[OperatorCall]) -> None:
        """Let calls run in place of one of the graph's own."""
        self._instead[position] = tuple(calls)

    def drop_inputs(self) -> frozenset[int]:
        """Take in no more what only calls read that are gone; the positions that these inputs had."""
        gone = _read(self._graph) - _read(self._whole())
        positions = frozenset(at for at, index in enumerate(self.inputs) if index in gone)
        self.inputs = [index for index in self.inputs if index not in gone]
        return positions

    def graph(self) -> VulkanGraph:
        """Return the edited graph without values and constants that nothing reads."""
        return pruned(self._whole())

    def _whole(self) -> VulkanGraph:
        chain = [*self._front]
        for position, call in enumerate(self._graph.chain):
            chain.extend(self._instead.get(position, (call,)))
        return replace(
            self._graph,
            chain=tuple(chain),
            values=tuple(self._values),
            input_ids=tuple(self.inputs),
            output_ids=tuple(self.outputs),
            constants=tuple(self._constants),
        )


def pruned(graph: VulkanGraph) -> VulkanGraph:
    """Return a graph without values and constants that nothing reads."""
    graph = replace(graph, chain=_read_copies(graph))
    used = {*graph.input_ids, *graph.output_ids, *(index for call in graph.chain for index in call.args)}
    listed = [value for index in used if isinstance(value := graph.values[index], ValueList)]
    while listed:
        more = {*listed.pop().ids} - used
        used |= more
        listed += [value for index in more if isinstance(value := graph.values[index], ValueList)]
    return reordered(graph, sorted(used))


def reordered(graph: VulkanGraph, order: Iterable[int]) -> VulkanGraph:
    """Return a graph of these values only, which are all that its calls name, in this order."""
    numbers = {old: new for new, old in enumerate(order)}
    kept = [graph.values[old] for old in numbers]
    read = sorted({value.constant_id for value in kept if isinstance(value, VkTensor) and value.constant})
    constants = {old: new for new, old in enumerate(read)}

    def renumbered(value: VkValue) -> VkValue:
        if isinstance(value, ValueList):
            return ValueList(_mapped(value.ids, numbers))
        if isinstance(value, VkTensor) and value.constant:
            return replace(value, constant_id=constants[value.constant_id])
        return value

    return replace(
        graph,
        chain=tuple(replace(call, args=_mapped(call.args, numbers)) for call in graph.chain),
        values=tuple(renumbered(value) for value in kept),
        input_ids=_mapped(graph.input_ids, numbers),
        output_ids=_mapped(graph.output_ids, numbers),
        constants=tuple(graph.constants[old] for old in constants),
    )


def _read_copies(graph: VulkanGraph) -> tuple[OperatorCall, ...]:
    """Return the calls without copies of constants that nothing reads."""
    read = _read(graph)
    return tuple(call for call in graph.chain if call.name != PREPACK or call.args[-1] in read)


def _read(graph: VulkanGraph) -> set[int]:
    """The values that calls and lists read, or that are handed out."""
    read = {*graph.output_ids, *(index for call in graph.chain for index in call.args[:-1])}
    return read | {index for value in graph.values if isinstance(value, ValueList) for index in value.ids}


def _mapped(ids: Sequence[int], numbers: dict[int, int]) -> tuple[int, ...]:
    return tuple(numbers[index] for index in ids)
