"""A file with other tables: each site gets its pack, what nothing reads any more goes, the rest stays as it is.

A lookup on the CPU joins the Vulkan delegate that alone reads its rows, whose inputs and call change with it; every
other one becomes a delegate of its own in the same place. The result is what
`vkfuse.pte.writer` writes.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import count

from vkfuse.measure.tables import FloatMatmul, TableRead, float_matmuls, table_reads
from vkfuse.patch.gathers import gather_calls, rows_like
from vkfuse.patch.lookups import FLOATS, LookedUp, input_indices, lookup_calls, lookup_graph
from vkfuse.patch.matmuls import matmul_calls
from vkfuse.patch.methods import MethodEdit
from vkfuse.patch.places import clash
from vkfuse.patch.pruned import members, values_of
from vkfuse.pte.enums import DataLocation, ScalarType, VkDataType
from vkfuse.pte.model import (
    Delegate,
    DelegateCall,
    Instruction,
    JumpFalseCall,
    KernelCall,
    Method,
    MoveCall,
    NamedData,
    PteFile,
)
from vkfuse.pte.place import Place
from vkfuse.pte.values import NOWHERE, Extent
from vkfuse.pte.vulkan import BACKEND_ID, VkTensor, VulkanGraph, vulkan_graphs
from vkfuse.tables.grid import Grid
from vkfuse.tables.planes import NibbleRows
from vkfuse.tables.q4 import Q4Pack
from vkfuse.tables.q8 import Q8Pack

Pack = LookedUp | Q8Pack | Grid
Packs = Mapping[Place, Pack]
_VIEW = "executorch_prim::et_view"


def edited(file: PteFile, packs: Packs) -> PteFile:
    """Return the file with the lookup or product at each place reading its pack."""
    graphs = vulkan_graphs(file)
    reads: dict[Place, TableRead | FloatMatmul] = {read.where: read for read in table_reads(file)}
    reads |= {read.where: read for read in float_matmuls(file)}
    named: dict[str, memoryview] = {}
    methods, beyond = [], count(file.size)
    for method in file.methods:
        of = [(reads[place], pack) for place, pack in packs.items() if place.method == method.name]
        edit = TableEdit(method, graphs, beyond)
        for read, pack in of:
            edit.rewrite(read, pack)
        methods.append(edit.finished() if of else method)
        named |= edit.named
    return with_named(replace(file, methods=tuple(methods)), graphs, named)


def with_named(file: PteFile, before: Mapping[Place, VulkanGraph], new: Mapping[str, memoryview]) -> PteFile:
    """Return the file with the named data of new constants, and without those that graphs no longer name."""
    gone = _keys(before) - _keys(vulkan_graphs(file))
    kept = tuple(entry for entry in file.named if entry.key not in gone)
    known = {entry.key for entry in kept}
    made = (
        NamedData(key=key, segment_index=0, data=data, data_at=Extent(file.size, len(data)))
        for key, data in new.items()
        if key not in known and key not in gone
    )
    return replace(file, named=(*kept, *made))


def _keys(graphs: Mapping[Place, VulkanGraph]) -> set[str]:
    """The names that constants of graphs stand under."""
    return {constant.named_key for graph in graphs.values() for constant in graph.constants if constant.named}


class TableEdit(MethodEdit):
    """A method whose lookups and matmuls get packs."""

    def __init__(self, method: Method, graphs: Mapping[Place, VulkanGraph], beyond: Iterator[int]) -> None:
        super().__init__(method, graphs, beyond)
        self._moved: set[int] = set()
        self._gathered: set[int] = set()  # delegates whose lookups are done in front of them

    def rewrite(self, read: TableRead | FloatMatmul, pack: Pack) -> None:
        """Let a lookup or a product read a pack. TypeError for one that it cannot read, which the plan does not choose."""
        match read, pack:
            case FloatMatmul(), Q4Pack() | Q8Pack():
                self._multiply(read, pack)
            case TableRead(), Q4Pack() | NibbleRows():
                self._look_up(read, pack)
            case TableRead(), Grid():
                self._gather(read, pack)
            case _:
                raise TypeError(f"{read.where} cannot read a {type(pack).__name__}")

    def _gather(self, read: TableRead, table: Grid) -> None:
        """Gather on the CPU, where the lookup was, or in front of the delegate that looked up."""
        place = read.where
        if place.call is None or read.indices is None:
            raise TypeError(f"{place} is no lookup")
        if place.delegate is None:
            self.instructions[place.call] = gather_calls(self, table, read.indices, read.output)
            return
        self._gathered.add(place.delegate)
        for at, call in self.calls(place.delegate):
            self._gather_in_front(at, call, read, table)
        edit = self.edit(place.delegate)
        edit.instead(place.call, ())
        edit.given(read.output)

    def _gather_in_front(self, at: int, call: DelegateCall, read: TableRead, table: Grid) -> None:
        """Give a call of a delegate rows, which it hands out no more."""
        edit = self.edit(call.delegate_index)
        count, args = len(edit.inputs), call.args
        indices = next(arg for index, arg in zip(edit.inputs, args, strict=False) if index == read.indices)
        if read.output in edit.outputs:
            rows = args[position := count + edit.outputs.index(read.output)]
            args = (*args[:position], *args[position + 1 :])
        else:
            rows = rows_like(self, indices, table)
        self.in_front(at, gather_calls(self, table, indices, rows))
        self.rewire(at, (*args[:count], rows, *args[count:]))

    def finished(self) -> Method:
        """Return the method, whose delegates are given only what they read, and are not called for nothing."""
        for index in self._gathered:
            edit = self.edit(index)
            gone = edit.drop_inputs()
            for at, call in self.calls(index):
                if edit.outputs:
                    self.rewire(at, tuple(arg for n, arg in enumerate(call.args) if n not in gone))
                else:
                    self.instructions[at] = self.instructions[at][:-1]
        return super().finished()

    def _multiply(self, read: FloatMatmul, pack: Q4Pack | Q8Pack) -> None:
        delegate, call = read.where.delegate, read.where.call
        if delegate is None or call is None:
            raise TypeError(f"{read.where} is no call of a delegate")
        edit = self.edit(delegate)
        edit.instead(call, matmul_calls(edit, pack, read, dynamic=self.dynamic(delegate)))

    def _look_up(self, read: TableRead, pack: LookedUp) -> None:
        place = read.where
        if place.call is None or read.indices is None:
            raise TypeError(f"{place} is no lookup")
        if place.delegate is None:
            self._on_cpu(place.call, read.indices, read.output, pack)
        else:
            edit = self.edit(place.delegate)
            edit.instead(place.call, lookup_calls(edit, pack, read.indices, read.output))

    def _on_cpu(self, number: int, indices: int, out: int, pack: LookedUp) -> None:
        """Move a lookup from the CPU into the delegate that reads its rows, or into one of its own."""
        reader = self._reader(number, indices, out, pack)
        if reader is None:
            self._by_itself(number, indices, out, pack)
        else:
            self._joined(number, reader, indices, out, pack)

    def _by_itself(self, number: int, indices: int, out: int, pack: LookedUp) -> None:
        """Let a delegate of its own write the rows where the kernel did."""
        ids, rows = self.tensor(indices), self.tensor(out)
        edit = lookup_graph(pack, ids.sizes, FLOATS[rows.scalar_type])
        none = Delegate(
            id=BACKEND_ID,
            compile_specs=(),
            location=DataLocation.SEGMENT,
            processed=memoryview(b""),
            processed_at=NOWHERE,
        )
        self.delegates.append(self.made(edit, none))
        call = DelegateCall(delegate_index=len(self.delegates) - 1, args=(indices, out))
        self.instructions[number] = (call,)

    def _joined(self, number: int, reader: int, indices: int, out: int, pack: LookedUp) -> None:
        """Let the delegate that reads the rows look them up, and give it the indices in their place."""
        call = self.delegate_call(reader)
        position = call.args.index(out)
        edit = self.edit(call.delegate_index)
        rows = edit.inputs[position]
        sizes, target = self.tensor(indices).sizes, edit.tensor_at(rows)
        edit.inputs[position] = input_indices(edit, sizes, target, pack)
        edit.in_front(lookup_calls(edit, pack, edit.inputs[position], rows))
        args = (*call.args[:position], indices, *call.args[position + 1 :])
        self.rewire(reader, args)
        self.instructions[number] = ()
        if self._must_move(number, reader, indices):
            self.values[indices] = self.plan.apart(self.tensor(indices))
            self._moved.add(indices)

    def _reader(self, number: int, indices: int, out: int, pack: LookedUp) -> int | None:
        """Return the delegate call that alone reads the rows and may look them up, None where there is none."""
        readers = [at for at, entry in self.entries() if out in values_of(entry) and at != number]
        if len(readers) != 1 or readers[0] < number or self._named_elsewhere(out):
            return None
        call = self.instructions[readers[0]][-1]
        if not isinstance(call, DelegateCall) or call.args.count(out) != 1:
            return None
        place = Place(self.method.name, call.delegate_index)
        takes = place in self.graphs and self._takes(call, out, pack)
        if not takes or not self._straight(number, readers[0]) or self._written(number, readers[0], indices):
            return None
        movable = not self._viewed(indices) or not self._must_move(number, readers[0], indices)
        return readers[0] if movable else None

    def _takes(self, call: DelegateCall, out: int, pack: LookedUp) -> bool:
        """Whether a delegate has the rows as a tensor that the lookup can write with the values that the CPU's had."""
        edit, position = self.edit(call.delegate_index), call.args.index(out)
        if position >= len(edit.inputs) or edit.inputs.count(edit.inputs[position]) != 1:
            return False
        target = edit.at(edit.inputs[position])
        rounds = pack.dtype is ScalarType.HALF  # the CPU's rows are rounded to half, the delegate's must be
        return (
            len(self.calls(call.delegate_index)) == 1
            and isinstance(target, VkTensor)
            and not target.constant
            and target.dims == self.tensor(out).sizes
            and target.dtype in ({VkDataType.FLOAT16} if rounds else {*FLOATS.values()})
        )

    def _straight(self, first: int, last: int) -> bool:
        """Whether every run that executes the one instruction executes the other."""
        jumps = [(at, entry) for at, entry in self.entries() if isinstance(entry, JumpFalseCall)]
        return not any(
            first <= at <= last or first < entry.destination_instruction <= last for at, entry in jumps
        )

    def _written(self, first: int, last: int, indices: int) -> bool:
        """Whether an instruction in between may write the indices."""
        for _, entry in self._between(first, last):
            match entry:
                case KernelCall() if entry.args and entry.args[-1] == indices:
                    return True
                case MoveCall() if entry.move_to == indices:
                    return True
                case DelegateCall() if indices in entry.args:
                    if not self._only_reads(entry, indices):
                        return True
        return False

    def _only_reads(self, call: DelegateCall, indices: int) -> bool:
        """Whether a delegate takes the indices in and does not hand them out, as far as its graph is known."""
        place = Place(self.method.name, call.delegate_index)
        if place not in self.graphs:
            return False
        return indices not in call.args[len(self.graphs[place].input_ids) :]

    def _must_move(self, first: int, last: int, indices: int) -> bool:
        """Whether the plan gives the memory of the indices away before, or when, the delegate reads them."""
        if indices in self._moved:
            return False
        others = {at for _, entry in self._between(first, last) for at in values_of(entry)}
        reading = self.method.instructions[last]
        others |= {*values_of(reading)} - {indices}
        return clash(self.tensor(indices), others, self.values)

    def _viewed(self, index: int) -> bool:
        """Whether another value is to lie where this one does, which must not move then."""
        operators = self.method.operators
        views = (
            entry
            for _, entry in self.entries()
            if isinstance(entry, KernelCall) and operators[entry.op_index].name == _VIEW
        )
        return any(index in entry.args for entry in views) or self._listed(index)

    def _named_elsewhere(self, index: int) -> bool:
        """Whether a value leaves the method, or is in a list."""
        return index in self.method.outputs or self._listed(index)

    def _listed(self, index: int) -> bool:
        return any(index in members(value) for value in self.values)

    def _between(self, first: int, last: int) -> Iterator[tuple[int, Instruction]]:
        yield from ((at, entry) for at, entry in self.entries() if first < at < last)
