"""A method that is being edited: its values, its instructions, and the graphs of its delegates."""

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Final

import numpy as np

from vkfuse.patch.graphs import GraphEdit
from vkfuse.patch.places import Plan
from vkfuse.patch.pruned import members, pruned_method, values_of
from vkfuse.pte.enums import ShapeDynamism
from vkfuse.pte.model import (
    Delegate,
    DelegateCall,
    Instruction,
    JumpFalseCall,
    KernelCall,
    Method,
    Operator,
    Tensor,
    Value,
)
from vkfuse.pte.place import Place
from vkfuse.pte.values import Extent
from vkfuse.pte.vulkan import SymInt, VulkanGraph
from vkfuse.pte.vulkan_writer import write_vulkan
from vkfuse.tables.floats import Array, kind_of

_NEW: Final = (1 << 32) - 1  # the index of a new constant, which the writer counts: behind all others


class MethodEdit:
    """Edits of one method; `finished()` is the result, `named` the named data that new constants stand for.

    `beyond` counts extents past the input's end, one for each new blob.
    """

    def __init__(self, method: Method, graphs: Mapping[Place, VulkanGraph], beyond: Iterator[int]) -> None:
        self.method = method
        self.graphs = graphs
        self.beyond = beyond
        self.values = list(method.values)
        self.instructions: list[tuple[Instruction, ...]] = [(entry,) for entry in method.instructions]
        self.operators = list(method.operators)
        self.delegates = list(method.delegates)
        self.plan = Plan(list(method.non_const_buffer_sizes))
        self._edits: dict[int, GraphEdit] = {}
        self.named: dict[str, memoryview] = {}
        self._known: dict[int, int] = {}  # constants that were added, by the array

    def graph(self, delegate: int) -> VulkanGraph:
        """The graph of a delegate as it was."""
        return self.graphs[Place(self.method.name, delegate)]

    def edit(self, delegate: int) -> GraphEdit:
        """The edits of a delegate's graph."""
        if delegate not in self._edits:
            self._edits[delegate] = GraphEdit(self.graph(delegate))
        return self._edits[delegate]

    def entries(self) -> Iterator[tuple[int, Instruction]]:
        """Yield the instructions as they are now, with the numbers of the input's that they stand for."""
        yield from ((at, entry) for at, entries in enumerate(self.instructions) for entry in entries)

    def calls(self, delegate: int) -> list[tuple[int, DelegateCall]]:
        """The instructions that run a delegate."""
        return [
            (at, entry)
            for at, entry in self.entries()
            if isinstance(entry, DelegateCall) and entry.delegate_index == delegate
        ]

    def dynamic(self, delegate: int) -> bool:
        """Whether a size may be smaller in a run of a delegate than its graph says."""
        crossing = (self.values[index] for _, call in self.calls(delegate) for index in call.args)
        return any(isinstance(value, SymInt) for value in self.graph(delegate).values) or any(
            isinstance(value, Tensor) and value.dynamism is not ShapeDynamism.STATIC for value in crossing
        )

    def rewire(self, number: int, args: tuple[int, ...]) -> None:
        """Give the delegate call at an instruction other arguments."""
        call = self.delegate_call(number)
        self.instructions[number] = (*self.instructions[number][:-1], replace(call, args=args))

    def delegate_call(self, number: int) -> DelegateCall:
        """The call at an instruction. TypeError where it calls no delegate."""
        call = self.instructions[number][-1]
        if not isinstance(call, DelegateCall):
            raise TypeError(f"instruction {number} of {self.method.name} calls no delegate")
        return call

    def in_front(self, number: int, calls: Iterable[Instruction]) -> None:
        """Let calls run right before an instruction."""
        *before, last = self.instructions[number]
        self.instructions[number] = (*before, *calls, last)

    def value(self, value: Value) -> int:
        """Add a value."""
        self.values.append(value)
        return len(self.values) - 1

    def tensor(self, index: int) -> Tensor:
        """Return a tensor of the method. TypeError for another value, which the survey let pass."""
        value = self.values[index]
        if not isinstance(value, Tensor):
            raise TypeError(f"value {index} of {self.method.name} is no tensor")
        return value

    def constant(self, array: Array) -> int:
        """Add a constant; the same array is the same value."""
        if id(array) not in self._known:
            data = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
            tensor = Tensor(
                scalar_type=kind_of(array),
                sizes=array.shape,
                dim_order=tuple(range(array.ndim)),
                data_buffer_idx=_NEW,
                data=data,
            )
            self._known[id(array)] = self.value(tensor)
        return self._known[id(array)]

    def kernel(self, name: str, *args: int) -> KernelCall:
        """Make a call of a CPU kernel, by its full name."""
        base, _, overload = name.rpartition(".")
        operator = Operator(name=base, overload=overload)
        if operator not in self.operators:
            self.operators.append(operator)
        return KernelCall(op_index=self.operators.index(operator), args=args)

    def drop_unread(self, known: Container[int]) -> None:
        """Remove kernels that write what is known beforehand and is no longer read."""
        read = {*self.method.outputs, *(index for value in self.values for index in members(value))}
        for number, entry in reversed([*self.entries()]):
            if isinstance(entry, KernelCall) and entry.args[-1] in known and entry.args[-1] not in read:
                self.instructions[number] = tuple(of for of in self.instructions[number] if of is not entry)
            else:
                read |= {*values_of(entry)}

    def made(self, edit: GraphEdit, delegate: Delegate) -> Delegate:
        """Return a delegate with the blob of an edited graph."""
        self.named |= edit.named
        blob = memoryview(write_vulkan(edit.graph()))
        return replace(delegate, processed=blob, processed_at=Extent(next(self.beyond), len(blob)))

    def finished(self) -> Method:
        """Return the method of what is left, its jumps counted anew."""
        for index, edit in self._edits.items():
            self.delegates[index] = self.made(edit, self.delegates[index])
        left = [at for at, _ in self.entries()]
        numbers = [*accumulate(map(len, self.instructions), initial=0)]
        frames = self.method.frames
        changed = replace(
            self.method,
            values=tuple(self.values),
            instructions=tuple(_moved(entry, numbers) for _, entry in self.entries()),
            operators=tuple(self.operators),
            delegates=tuple(self.delegates),
            non_const_buffer_sizes=tuple(self.plan.sizes),
            frames=None if frames is None else tuple(frames[at] for at in left if at < len(frames)),
        )
        return pruned_method(changed)


def _moved(entry: Instruction, numbers: Sequence[int]) -> Instruction:
    """Return an instruction; a jump leads to where its target is now."""
    if isinstance(entry, JumpFalseCall):
        return replace(entry, destination_instruction=numbers[entry.destination_instruction])
    return entry
