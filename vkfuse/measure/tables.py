"""The tables that a file stores: constants that a lookup or a quantized linear reads, each with what it is read with."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

from vkfuse.measure.names import DIGITS, table_names
from vkfuse.pages import digest
from vkfuse.pte.enums import ScalarType, VkDataType
from vkfuse.pte.model import KernelCall, Method, PteFile, Tensor, Value, once_a_file
from vkfuse.pte.place import Place
from vkfuse.pte.values import Bool, Double, Int
from vkfuse.pte.vulkan import VkTensor, VkValue, VulkanGraph, vulkan_graphs
from vkfuse.runtime.kernels import KERNELS
from vkfuse.runtime.operators import record_of
from vkfuse.runtime.operators.matmul import FLOAT_WEIGHTS
from vkfuse.runtime.operators.moves import PREPACK
from vkfuse.runtime.record import Operator, TableArguments


@dataclass(frozen=True, slots=True, kw_only=True)
class ConstantTensor:
    """A constant tensor of a file, of a delegate or of the program; `data` is None where only a .ptd has it.

    `name` is its key in the named data, or where it stands; `shown` the same with no more digits than a reader wants, of a
    weight the name that the file records. `keyed`: the name is a key, the SHA-256 of the bytes.
    """

    name: str
    shown: str
    dtype: VkDataType | ScalarType
    dims: tuple[int, ...]
    nbytes: int
    data: memoryview | None = field(repr=False)
    dim_order: tuple[int, ...] | None = None
    keyed: bool = False

    @property
    def bits(self) -> int:
        """Bits of a value, 0 for a type that is not set."""
        return 0 if self.dtype is VkDataType.UNSET else self.dtype.bytes * 8


@dataclass(frozen=True, slots=True, kw_only=True)
class TableRead:
    """One read of a table: `where` is the call, in a delegate or on the CPU.

    `low_first` is the layout of a packed weight, None where the operator has but one. `indices` is the value of the
    delegate, or of the method, that a lookup has for them, `output` the one that it writes.
    """

    where: Place
    operator: str
    reader: TableArguments
    weight: ConstantTensor
    scales: ConstantTensor | None
    also: tuple[ConstantTensor, ...]
    group: int | None
    low_first: bool | None
    indices: int | None
    output: int

    @property
    def constants(self) -> tuple[ConstantTensor, ...]:
        """All constants of the table."""
        return self.weight, *(() if self.scales is None else (self.scales,)), *self.also


@dataclass(frozen=True, slots=True, kw_only=True)
class FloatMatmul:
    """A product with a constant matrix of floats in a delegate; `turned` stands as [columns, rows].

    `source`, `bias` and `output` are values of the delegate; the bias is a constant, or None.
    """

    where: Place
    operator: str
    weight: ConstantTensor
    turned: bool
    source: int
    bias: int | None
    output: int

    @property
    def constants(self) -> tuple[ConstantTensor, ...]:
        """The matrix."""
        return (self.weight,)


@once_a_file
def float_matmuls(pte: PteFile) -> tuple[FloatMatmul, ...]:
    """Return every product with a matrix of floats and a constant bias, or none, in the delegates of a file."""
    graphs = vulkan_graphs(pte).items()
    return tuple(chain.from_iterable(_matmuls(graph, place) for place, graph in graphs))


def _matmuls(graph: VulkanGraph, place: Place) -> Iterator[FloatMatmul]:
    """Yield the products in one delegate."""
    for call in _calls_of(graph, place):
        argument, turned = FLOAT_WEIGHTS.get(call.operator, ("", False))
        weight, source = call.constant(argument), call.at("mat1" if turned else "input")
        factors = (call.argument(name) for name in ("beta", "alpha"))
        plain = all(factor is None or factor in (Int(1), Double(1.0)) for factor in factors)
        if weight is None or source is None or not plain:
            continue
        bias = None if call.argument("bias") is None else call.original("bias")
        value = None if bias is None else graph.values[bias]
        if bias is None or (isinstance(value, VkTensor) and value.constant):
            yield FloatMatmul(
                where=call.where,
                operator=call.operator,
                weight=weight,
                turned=turned,
                source=source,
                bias=bias,
                output=call.args[-1],
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call:
    """A call of a delegate or of a CPU kernel, its arguments by name; `copies`: of which constants values are copies."""

    where: Place
    operator: str
    record: Operator
    args: tuple[int, ...]
    values: Sequence[VkValue | Value]
    copies: Mapping[int, int]
    named: Callable[[Any], ConstantTensor]

    def at(self, name: str) -> int | None:
        """The value of an argument but the last, which is the output; None where there is none."""
        position = self.record.position(name)
        return self.args[position] if position is not None and position < len(self.args) - 1 else None

    def original(self, name: str) -> int | None:
        """The constant that an argument is the copy of, or the argument itself."""
        index = self.at(name)
        return None if index is None else self.copies.get(index, index)

    def argument(self, name: str) -> VkValue | Value:
        """An argument, None where there are fewer."""
        index = self.at(name)
        return None if index is None else self.values[index]

    def constant(self, name: str) -> ConstantTensor | None:
        """An argument that is a constant, or the copy of one."""
        index = self.original(name)
        value = None if index is None else self.values[index]
        return self.named(value) if isinstance(value, VkTensor | Tensor) and value.constant else None

    def table(self) -> TableRead | None:
        """The read of a table that it is, None for another call."""
        reader = self.record.table
        weight = None if reader is None else self.constant(reader.weight)
        if reader is None or weight is None:
            return None
        group, low_first = self.argument(reader.group), self.argument(reader.layout)
        return TableRead(
            where=self.where,
            operator=self.operator,
            reader=reader,
            weight=weight,
            scales=self.constant(reader.scales),
            also=tuple(constant for name in reader.also if (constant := self.constant(name))),
            group=group.value if isinstance(group, Int) else None,
            low_first=low_first.value if isinstance(low_first, Bool) else None,
            indices=self.at("indices"),
            output=self.args[-1],
        )


def _calls_of(graph: VulkanGraph, place: Place) -> Iterator[_Call]:
    copies = {
        call.args[1]: call.args[0] for call in graph.chain if call.name == PREPACK and len(call.args) > 1
    }
    for number, call in enumerate(graph.chain):
        yield _Call(
            where=place.at(number),
            operator=call.name,
            record=record_of(call.name),
            args=call.args,
            values=graph.values,
            copies=copies,
            named=lambda tensor: _of_delegate(graph, tensor, place),
        )


def _kernel_calls(method: Method) -> Iterator[_Call]:
    """Yield the calls of a method's CPU kernels."""
    for number, call in enumerate(method.instructions):
        if isinstance(call, KernelCall):
            operator = method.operators[call.op_index]
            yield _Call(
                where=Place(method.name, call=number),
                operator=operator.full_name,
                record=KERNELS.get(operator.name, Operator(operator.name)),
                args=call.args,
                values=method.values,
                copies={},
                named=_of_program,
            )


@once_a_file
def table_reads(pte: PteFile) -> tuple[TableRead, ...]:
    """Return every read of a table, those of delegates first, in the order of the file."""
    return table_reads_by(pte, table_names(pte))


def read_as_tables(reads: Iterable[TableRead]) -> list[TableRead]:
    """Return reads but those of another table's scales: a lookup that is tied to a head looks up the head's."""
    every = [*reads]
    scales = {read.scales.name for read in every if read.scales is not None}
    return [read for read in every if read.weight.name not in scales]


def table_reads_by(pte: PteFile, names: Mapping[str, str]) -> tuple[TableRead, ...]:
    """Return the reads of tables, which are shown by `names`, by the first digits of the SHA-256 of their bytes."""
    vulkan = (_calls_of(graph, place) for place, graph in vulkan_graphs(pte).items())
    calls = chain.from_iterable((*vulkan, *map(_kernel_calls, pte.methods)))
    reads = (read for call in calls if (read := call.table()) is not None)
    return tuple(_named(reads, names)) if names else tuple(reads)


def _named(reads: Iterable[TableRead], names: Mapping[str, str]) -> Iterator[TableRead]:
    """Yield reads whose weights are shown by their recorded names; without a key their bytes are hashed, once."""
    known: dict[str, str] = {}
    for read in reads:
        weight = read.weight
        if weight.name not in known:
            key = weight.name if weight.keyed else digest(weight.data or memoryview(b"")).hex()
            known[weight.name] = names.get(key[:DIGITS], weight.shown)
        yield replace(read, weight=replace(weight, shown=known[weight.name]))


def constants_of(pte: PteFile, method: str) -> Iterator[ConstantTensor]:
    """Yield every constant tensor of a method and of its delegates."""
    for place, graph in vulkan_graphs(pte).items():
        for value in graph.values if place.method == method else ():
            if isinstance(value, VkTensor) and value.constant:
                yield _of_delegate(graph, value, place)
    for of in pte.methods:
        for given in of.values if of.name == method else ():
            if isinstance(given, Tensor) and given.constant:
                yield _of_program(given)


def _of_delegate(graph: VulkanGraph, tensor: VkTensor, place: Place) -> ConstantTensor:
    """Return a constant of a delegate, named by its key in the named data or by where it stands."""
    return ConstantTensor(
        name=constant_name(graph, tensor, place, digits=None),
        shown=constant_name(graph, tensor, place),
        dtype=tensor.dtype,
        dims=tensor.dims,
        nbytes=tensor.nbytes,
        data=tensor.data,
        keyed=bool(graph.constants[tensor.constant_id].named_key),
    )


def constant_name(graph: VulkanGraph, tensor: VkTensor, where: Place, *, digits: int | None = DIGITS) -> str:
    """Return the first digits of a constant's key, or where it stands."""
    key = graph.constants[tensor.constant_id].named_key
    return key[:digits] or f"{where} constant {tensor.constant_id}"


def _of_program(tensor: Tensor) -> ConstantTensor:
    """Return a constant of the program; all methods of a file share them."""
    name = tensor.name or f"constant {tensor.data_buffer_idx}"
    return ConstantTensor(
        name=name,
        shown=name,
        dtype=tensor.scalar_type,
        dims=tensor.sizes,
        nbytes=tensor.nbytes,
        data=tensor.data,
        dim_order=tensor.dim_order,
    )
