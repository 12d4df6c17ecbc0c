"""A method that is being edited: its values, its instructions, and the graphs of its delegates."""

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate

from vkfuse.patch.graphs import GraphEdit
from vkfuse.patch.places import Plan
from vkfuse.patch.pruned import members, pruned_method, values_of
from vkfuse.pte.enums import ShapeDynamism
from vkfuse.pte.model import Delegate, DelegateCall, Instruction, JumpFalseCall, KernelCall, Method, Tensor
from vkfuse.pte.place import Place
from vkfuse.pte.values import Extent
from vkfuse.pte.vulkan import SymInt, VulkanGraph
from vkfuse.pte.vulkan_writer import write_vulkan


class MethodEdit:
    """Edits of one method; `finished()` is the result, `named` the named data that new constants stand for.

    `beyond` counts extents past the input's end, one for each new blob.
    """

    def __init__(self, method: Method, graphs: Mapping[Place, VulkanGraph], beyond: Iterator[int]) -> None:
        self.method = method
        self.graphs = graphs
        self._beyond = beyond
        self.values = list(method.values)
        self.instructions: list[Instruction | None] = list(method.instructions)
        self.delegates = list(method.delegates)
        self.plan = Plan(list(method.non_const_buffer_sizes))
        self._edits: dict[int, GraphEdit] = {}
        self.named: dict[str, memoryview] = {}

    def graph(self, delegate: int) -> VulkanGraph:
        """The graph of a delegate as it was."""
        return self.graphs[Place(self.method.name, delegate)]

    def edit(self, delegate: int) -> GraphEdit:
        """The edits of a delegate's graph."""
        if delegate not in self._edits:
            self._edits[delegate] = GraphEdit(self.graph(delegate))
        return self._edits[delegate]

    def entries(self) -> Iterator[tuple[int, Instruction]]:
        """Yield the instructions that are left, with their numbers in the input."""
        yield from ((at, entry) for at, entry in enumerate(self.instructions) if entry is not None)

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
        call = self.instructions[number]
        if not isinstance(call, DelegateCall):
            raise TypeError(f"instruction {number} of {self.method.name} calls no delegate")
        self.instructions[number] = replace(call, args=args)

    def drop_unread(self, known: Container[int]) -> None:
        """Remove kernels that write what is known beforehand and is no longer read."""
        read = {*self.method.outputs, *(index for value in self.values for index in members(value))}
        for number, entry in reversed([*self.entries()]):
            if isinstance(entry, KernelCall) and entry.args[-1] in known and entry.args[-1] not in read:
                self.instructions[number] = None
            else:
                read |= {*values_of(entry)}

    def made(self, edit: GraphEdit, delegate: Delegate) -> Delegate:
        """Return a delegate with the blob of an edited graph."""
        self.named |= edit.named
        blob = memoryview(write_vulkan(edit.graph()))
        return replace(delegate, processed=blob, processed_at=Extent(next(self._beyond), len(blob)))

    def finished(self) -> Method:
        """Return the method of what is left, its jumps counted anew."""
        for index, edit in self._edits.items():
            self.delegates[index] = self.made(edit, self.delegates[index])
        left = [at for at, _ in self.entries()]
        numbers = [*accumulate((entry is not None for entry in self.instructions), initial=0)]
        frames = self.method.frames
        changed = replace(
            self.method,
            values=tuple(self.values),
            instructions=tuple(_moved(entry, numbers) for _, entry in self.entries()),
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
