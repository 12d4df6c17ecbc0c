"""The tables that a file stores: constants that a lookup or a quantized linear reads, each with what it is read with."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain

from vkfuse.measure.names import DIGITS, table_names
from vkfuse.pages import digest
from vkfuse.pte.enums import ScalarType, VkDataType
from vkfuse.pte.model import KernelCall, Method, PteFile, Tensor
from vkfuse.pte.once import once_a_file
from vkfuse.pte.place import Place
from vkfuse.pte.values import Bool, Double, Int
from vkfuse.pte.vulkan import OperatorCall, VkTensor, VkValue, VulkanGraph, vulkan_graphs
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
    copies = _copies(graph)
    for number, call in enumerate(graph.chain):
        record = record_of(call.name)
        argument, turned = FLOAT_WEIGHTS.get(call.name, ("", False))
        weight = _argument(graph, call, record.position(argument), copies, place)
        source = _at(call.args, record.position("mat1" if turned else "input"))
        bias = _at(call.args, record.position("bias"))
        if weight is None or source is None or not _plain(graph, call):
            continue
        added = None if bias is None or graph.values[bias] is None else copies.get(bias, bias)
        value = None if added is None else graph.values[added]
        if added is None or (isinstance(value, VkTensor) and value.constant):
            yield FloatMatmul(
                where=place.at(number),
                operator=call.name,
                weight=weight,
                turned=turned,
                source=source,
                bias=added,
                output=call.args[-1],
            )


def _plain(graph: VulkanGraph, call: OperatorCall) -> bool:
    """Whether neither bias nor product is multiplied by another factor than one."""
    record = record_of(call.name)
    factors = (_value(graph, call, record.position(name)) for name in ("beta", "alpha"))
    return all(factor is None or factor in (Int(1), Double(1.0)) for factor in factors)


def _copies(graph: VulkanGraph) -> dict[int, int]:
    """The constants that tensors are copies of."""
    return {call.args[1]: call.args[0] for call in graph.chain if call.name == PREPACK and len(call.args) > 1}


@once_a_file
def table_reads(pte: PteFile) -> tuple[TableRead, ...]:
    """Return every read of a table, those of delegates first, in the order of the file."""
    vulkan = (_vulkan_reads(graph, place) for place, graph in vulkan_graphs(pte).items())
    reads = chain.from_iterable((*vulkan, *map(_cpu_reads, pte.methods)))
    names = table_names(pte)
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


def _vulkan_reads(graph: VulkanGraph, place: Place) -> Iterator[TableRead]:
    """Yield the reads in one delegate."""
    copies = _copies(graph)
    for number, call in enumerate(graph.chain):
        record = record_of(call.name)
        table = record.table
        weight = (
            None if table is None else _argument(graph, call, record.position(table.weight), copies, place)
        )
        if table is None or weight is None:
            continue
        yield TableRead(
            where=place.at(number),
            operator=call.name,
            reader=table,
            weight=weight,
            scales=_argument(graph, call, record.position(table.scales), copies, place),
            also=tuple(
                c
                for name in table.also
                if (c := _argument(graph, call, record.position(name), copies, place))
            ),
            group=_integer(graph, call, record.position(table.group)),
            low_first=_flag(graph, call, record.position(table.layout)),
            indices=_at(call.args, record.position("indices")),
            output=call.args[-1],
        )


def _value(graph: VulkanGraph, call: OperatorCall, position: int | None) -> VkValue:
    """Return an argument, None where there are fewer."""
    return None if position is None or position >= len(call.args) else graph.values[call.args[position]]


def _argument(
    graph: VulkanGraph, call: OperatorCall, position: int | None, copies: Mapping[int, int], place: Place
) -> ConstantTensor | None:
    """Return an argument that is a constant, or the copy of one."""
    if position is None or position >= len(call.args):
        return None
    index = call.args[position]
    value = graph.values[copies.get(index, index)]
    return _of_delegate(graph, value, place) if isinstance(value, VkTensor) and value.constant else None


def _at(args: tuple[int, ...], position: int | None) -> int | None:
    """Return the value of an argument but the last, which is the output; None where there is none."""
    return args[position] if position is not None and position < len(args) - 1 else None


def _integer(graph: VulkanGraph, call: OperatorCall, position: int | None) -> int | None:
    """Return an argument that is an integer."""
    value = _value(graph, call, position)
    return value.value if isinstance(value, Int) else None


def _flag(graph: VulkanGraph, call: OperatorCall, position: int | None) -> bool | None:
    """Return an argument that is a boolean."""
    value = _value(graph, call, position)
    return value.value if isinstance(value, Bool) else None


def _cpu_reads(method: Method) -> Iterator[TableRead]:
    """Yield the reads of a method's CPU kernels."""
    for number, call in enumerate(method.instructions):
        if not isinstance(call, KernelCall):
            continue
        operator = method.operators[call.op_index]
        record = KERNELS.get(operator.name, Operator(operator.name))
        table = record.table
        weight = None if table is None else _of_call(method, call, record.position(table.weight))
        if table is None or weight is None:
            continue
        yield TableRead(
            where=Place(method.name, call=number),
            operator=operator.full_name,
            reader=table,
            weight=weight,
            scales=_of_call(method, call, record.position(table.scales)),
            also=tuple(c for name in table.also if (c := _of_call(method, call, record.position(name)))),
            group=None,
            low_first=None,
            indices=_at(call.args, record.position("indices")),
            output=call.args[-1],
        )


def _of_call(method: Method, call: KernelCall, position: int | None) -> ConstantTensor | None:
    """Return an argument of a kernel that is a constant."""
    value = None if position is None or position >= len(call.args) else method.values[call.args[position]]
    return _of_program(value) if isinstance(value, Tensor) and value.constant else None


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
