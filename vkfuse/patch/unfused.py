"""A file with its lookups put back on the CPU, by float tables: what lowering made before there was a fused lookup.

The opposite of `vkfuse.patch.edit`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Final

from vkfuse.measure.names import KEY
from vkfuse.measure.tables import TableRead, table_reads
from vkfuse.patch.cut import GraphCut, UntoldError
from vkfuse.patch.edit import with_named
from vkfuse.patch.methods import MethodEdit
from vkfuse.patch.pruned import values_of
from vkfuse.patch.relaid import relaid_graph, relaid_method
from vkfuse.pte.enums import ScalarType, ShapeDynamism
from vkfuse.pte.model import DelegateCall, KernelCall, Method, PteFile, Tensor
from vkfuse.pte.place import Place
from vkfuse.pte.values import Bool, Extent, Int
from vkfuse.pte.vulkan import VulkanGraph, vulkan_graphs
from vkfuse.pte.vulkan_writer import write_vulkan
from vkfuse.tables.floats import Array

_SIZE: Final = "aten::sym_size"
_COPY: Final = "dim_order_ops::_clone_dim_order"
_PURE: Final = {
    _SIZE,
    *(f"executorch_prim::{name}" for name in ("add", "sub", "mul", "floordiv")),
    "aten::add",  # indices of scales
    "aten::unsqueeze_copy",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FloatTable:
    """A table [rows, columns] of floats; `padding` is the lookup's argument of that name, -1 for none.

    `parameter`: the program has it as a parameter, which the file says. `viewed`: the program reshapes the indices to the
    shape that they have.
    """

    rows: int
    columns: int
    scalar_type: ScalarType
    padding: int
    parameter: bool
    viewed: bool
    numbers: Array | None = field(default=None, repr=False, compare=False)


def unfused(file: PteFile, tables: Mapping[Place, FloatTable]) -> PteFile:
    """Return the file with the lookup at each place in a float table on the CPU, and without names of tables.

    UntoldError where the rows of one cannot come from outside of its delegate, or the file is laid out otherwise than this
    version of ExecuTorch does it.
    """
    graphs, reads = vulkan_graphs(file), {read.where: read for read in table_reads(file)}
    methods, beyond = [], count(file.size)
    for method in file.methods:
        edit = _Unfusing(method, graphs, beyond)
        for place, table in tables.items():
            if place.method == method.name:
                edit.lookup(reads[place], table)
        methods.append(edit.lowered())
    made = with_named(replace(file, methods=tuple(methods)), graphs, {})
    return replace(made, named=tuple(entry for entry in made.named if entry.key != KEY))


class _Unfusing(MethodEdit):
    """A method whose lookups leave their delegates."""

    def __init__(self, method: Method, graphs: Mapping[Place, VulkanGraph], beyond: Iterator[int]) -> None:
        super().__init__(method, graphs, beyond)
        self._cuts = {
            index: GraphCut(graphs[place])
            for index in range(len(method.delegates))
            if (place := Place(method.name, index)) in graphs
        }
        self._require_known()
        self._args = {index: [*self.calls(index)[0][1].args] for index in self._cuts}

    def _require_known(self) -> None:
        """Raise UntoldError where the method is not as this writes it."""
        kinds, name = (KernelCall, DelegateCall), self.method.name
        if self.method.frames is not None or not all(isinstance(e, kinds) for _, e in self.entries()):
            raise UntoldError(f"{name} branches, moves values, or says where its instructions come from")
        if any(len(self.calls(index)) != 1 for index in range(len(self.method.delegates))):
            raise UntoldError(f"{name} calls a delegate several times")
        graphs = {index: cut.graph() for index, cut in self._cuts.items()}
        known = all(
            relaid_graph(graph, self._sizes(index, graph)) == graph for index, graph in graphs.items()
        )
        if len(graphs) < len(self.method.delegates) or not known or self._relaid(graphs) != self.method:
            raise UntoldError(f"{name} is laid out otherwise than by ExecuTorch 1.5")

    def _sizes(self, delegate: int, graph: VulkanGraph) -> dict[int, int]:
        """Return the bytes of what crosses the border of a delegate, by its values."""
        ((_, call),) = self.calls(delegate)
        crossing = zip((*graph.input_ids, *graph.output_ids), call.args, strict=False)
        pairs = ((index, self.values[at]) for index, at in crossing)
        return {index: value.nbytes for index, value in pairs if isinstance(value, Tensor)}

    def _relaid(self, graphs: Mapping[int, VulkanGraph]) -> Method:
        """Return the method as lowering lays it out."""
        changed = replace(
            self.method,
            values=tuple(self.values),
            instructions=tuple(entry for _, entry in self.entries()),
            operators=tuple(self.operators),
        )
        inputs = {index: len(graph.input_ids) for index, graph in graphs.items()}
        return relaid_method(changed, inputs, len(self.method.values))

    def lookup(self, read: TableRead, table: FloatTable) -> None:
        """Move a lookup to the CPU; UntoldError where that cannot be."""
        delegate, number, indices = read.where.delegate, read.where.call, read.indices
        if delegate is None or number is None or indices is None:
            raise TypeError(f"{read.where} is no lookup of a delegate")
        cut, args = self._cuts[delegate], self._args[delegate]
        at, inputs = cut.origin(indices), len(cut.inputs)
        ids = self.values[args[at]]
        rows = cut.cut(number, at, table.columns)
        if not isinstance(ids, Tensor) or rows.dims != (*ids.sizes, table.columns):
            raise UntoldError("indices of a lookup are in another shape inside of their delegate")
        out, source = self._rows(ids, table), args[at]
        if table.viewed and source in self.method.inputs:
            source = self._viewed(ids)
        self.in_front(self._front(args[at]), [self._call(table, source, out)])
        if len(cut.inputs) == inputs:
            args[at] = out
        else:
            args.insert(inputs, out)

    def lowered(self) -> Method:
        """Return the method as it is then."""
        graphs = {}
        for index, cut in self._cuts.items():
            ((number, _),) = self.calls(index)
            args, left = self._args[index], cut.left()
            self.rewire(number, (*(args[at] for at in left), *args[len(cut.inputs) :]))
            graphs[index] = relaid_graph(cut.graph(), self._sizes(index, cut.graph()))
        known = self._named()
        self.drop_unread({*self._computed()})
        for index in known - self._named():
            self.values[index] = None  # constants too, which would stay
        made = self._relaid(graphs)
        blobs = [memoryview(write_vulkan(graphs[index], as_lowered=True)) for index in sorted(graphs)]
        delegates = (
            replace(delegate, processed=blob, processed_at=Extent(next(self.beyond), len(blob)))
            for delegate, blob in zip(made.delegates, blobs, strict=True)
        )
        return replace(made, delegates=tuple(delegates))

    def _named(self) -> set[int]:
        return {index for _, entry in self.entries() for index in values_of(entry)}

    def _computed(self) -> Iterator[int]:
        """Yield the sizes, and the indices of scales, that kernels compute."""
        for _, entry in self.entries():
            if isinstance(entry, KernelCall) and self.operators[entry.op_index].name in _PURE:
                yield entry.args[-1]

    def _front(self, indices: int) -> int:
        """Return where to look indices up: behind what takes their sizes, as programs have it."""
        front = 0
        for at, entry in self.entries():
            if not isinstance(entry, KernelCall):
                continue
            if self.operators[entry.op_index].name == _SIZE and indices in entry.args:
                front = at + 1
            elif self.operators[entry.op_index].name == _COPY and entry.args[-1] == indices:
                raise UntoldError("indices are copied for a lookup")
        return front

    def _viewed(self, ids: Tensor) -> int:
        """Add a value that lies where indices do, as a view of a shape known beforehand."""
        if ids.dynamism is not ShapeDynamism.STATIC:
            raise UntoldError("indices of a dynamic size are reshaped for a lookup")
        return self.value(replace(ids))

    def _rows(self, ids: Tensor, table: FloatTable) -> int:
        """Add what a lookup writes."""
        sizes = (*ids.sizes, table.columns)
        made = replace(
            ids, scalar_type=table.scalar_type, sizes=sizes, dim_order=tuple(range(len(sizes))), name=""
        )
        return self.value(made)

    def _call(self, table: FloatTable, indices: int, out: int) -> KernelCall:
        """Make the call of the CPU's lookup."""
        if table.numbers is None:
            raise TypeError("a table without its numbers")
        weight = self.constant(table.numbers)
        self.values[weight] = replace(self.tensor(weight), requires_grad=table.parameter)
        padding, scale, sparse = (
            self.value(value) for value in (Int(table.padding), Bool(value=False), Bool(value=False))
        )
        return self.kernel("aten::embedding.out", weight, indices, padding, scale, sparse, out, out)
