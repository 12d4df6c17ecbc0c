"""The blob of a Vulkan delegate: header, graph flatbuffer, constants.

`args`, `ids`, `input_ids` and `output_ids` index `VulkanGraph.values`.
Source: serialization/schema.fbs, runtime/VulkanDelegateHeader.cpp and runtime/VulkanBackend.cpp of
backends/vulkan in ExecuTorch 1.5.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import prod
from struct import Struct
from types import MappingProxyType
from typing import Final

from vkfuse.errors import FormatError, naming
from vkfuse.pte.enums import VkDataType, VkMemoryLayout, VkStorageType
from vkfuse.pte.flatbuffer import Budget, FlatTable, Source
from vkfuse.pte.layout import GRAPH_TYPES, VULKAN
from vkfuse.pte.model import PteFile, once_a_file
from vkfuse.pte.place import Place
from vkfuse.pte.records import read_record, read_shared
from vkfuse.pte.segments import cut
from vkfuse.pte.tensor import MAX_RANK
from vkfuse.pte.values import NOWHERE, Bool, BoolList, Double, DoubleList, Extent, Int, String

BACKEND_ID: Final = "VulkanBackend"
# Zeros, magic, length, flatbuffer offset and size, bytes offset and size.
HEADER: Final = Struct("<4s4sHIIIQ")
NAMED: Final = 2**64 - 1  # the offset that means: look the key up in named data


@dataclass(frozen=True, slots=True, kw_only=True)
class Constant:
    """A `VkBytes`: bytes of the blob, or `named_key` in the .pte's named data.

    `data` is None where the key is neither in the .pte nor among the external data supplied; `at` is where
    inline bytes stand in the blob.
    """

    offset: int
    length: int
    named_key: str
    data: memoryview | None = field(repr=False)
    at: Extent | None

    @property
    def named(self) -> bool:
        """Whether the bytes are looked up by key."""
        return self.at is None


@dataclass(frozen=True, slots=True, kw_only=True)
class VkTensor:
    """A tensor of the graph; `constant_id` < 0 for activations. `data` holds a constant's `nbytes` bytes."""

    dtype: VkDataType
    dims: tuple[int, ...]
    constant_id: int = -1
    mem_obj_id: int = -1
    storage: VkStorageType = VkStorageType.DEFAULT_STORAGE
    layout: VkMemoryLayout = VkMemoryLayout.DEFAULT_LAYOUT
    staging_dtype: VkDataType
    data: memoryview | None = field(default=None, repr=False)

    @property
    def constant(self) -> bool:
        """Whether the tensor is a constant."""
        return self.constant_id >= 0

    @property
    def nbytes(self) -> int:
        """Bytes of the whole tensor."""
        return prod(self.dims) * self.dtype.bytes


@dataclass(frozen=True, slots=True)
class IntList:
    """A list of integers."""

    items: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ValueList:
    """A list of values, by index."""

    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SymInt:
    """A symbolic integer and its value for the upper-bound shapes."""

    value: int


VkValue = (
    Int | Double | Bool | VkTensor | IntList | DoubleList | BoolList | ValueList | String | SymInt | None
)


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorCall:
    """One call: inputs, then outputs."""

    node_id: int
    name: str
    args: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class VulkanGraph:
    """A decoded delegate blob; extents count from the blob's first byte.

    `unread` is the path of a table with fields that the schema does not know, which a written graph would lack.
    """

    version: str = "0"
    chain: tuple[OperatorCall, ...] = ()
    values: tuple[VkValue, ...] = ()
    input_ids: tuple[int, ...] = ()
    output_ids: tuple[int, ...] = ()
    constants: tuple[Constant, ...] = ()
    shaders: tuple[Constant, ...] = ()
    storage_override: VkStorageType = VkStorageType.DEFAULT_STORAGE
    layout_override: VkMemoryLayout = VkMemoryLayout.DEFAULT_LAYOUT
    header_at: Extent = NOWHERE
    flatbuffer_at: Extent = NOWHERE
    bytes_at: Extent = NOWHERE
    unread: str = ""


Graphs = Mapping[Place, VulkanGraph]


@once_a_file
def vulkan_graphs(pte: PteFile) -> Graphs:
    """Decode every Vulkan delegate, by its place. FormatError."""
    named_data, budget = pte.named_data, Budget.of_size(pte.size)
    decoded: dict[Extent, VulkanGraph] = {}
    graphs: dict[Place, VulkanGraph] = {}
    for method in pte.methods:
        for index, delegate in enumerate(method.delegates):
            if delegate.id != BACKEND_ID:
                continue
            at = delegate.processed_at
            if at not in decoded:
                where = f"{method.name}.delegates[{index}].processed"
                with naming(pte.path):
                    decoded[at] = _decode(delegate.processed, named_data, budget, where)
            graphs[Place(method.name, index)] = decoded[at]
    return MappingProxyType(graphs)


def _decode(
    blob: memoryview, named_data: Mapping[str, memoryview], budget: Budget, where: str
) -> VulkanGraph:
    """Decode a blob; the path of an error starts with `where`."""
    try:
        return read_vulkan_graph(blob, named_data, budget=budget)
    except FormatError as error:
        raise FormatError(error.reason, field=f"{where}.{error.field}") from error


def read_vulkan_graph(
    blob: memoryview | bytes, named_data: Mapping[str, memoryview], *, budget: Budget | None = None
) -> VulkanGraph:
    """Decode a delegate's `processed` bytes. FormatError."""
    blob = memoryview(blob).toreadonly()
    header_at, flatbuffer_at, bytes_at = _header(blob)
    flatbuffer = cut(blob, flatbuffer_at, "header.flatbuffer_size")
    source = Source(flatbuffer, VULKAN, budget or Budget.of_size(len(blob)))
    root = source.root("VkGraph", b"VK00")
    constants = tuple(_constant(entry, blob, bytes_at, named_data) for entry in root.children("constants"))
    values = _values(root, constants)
    chain = tuple(_call(entry, len(values)) for entry in root.children("chain"))
    shaders = tuple(_constant(entry, blob, bytes_at, named_data) for entry in root.children("shaders"))
    return VulkanGraph(
        version=root.text("version"),
        chain=chain,
        values=values,
        input_ids=root.indices("input_ids", len(values)),
        output_ids=root.indices("output_ids", len(values)),
        constants=constants,
        shaders=shaders,
        storage_override=root.enumerated("storage_type_override", VkStorageType),
        layout_override=root.enumerated("memory_layout_override", VkMemoryLayout),
        header_at=header_at,
        flatbuffer_at=flatbuffer_at,
        bytes_at=bytes_at,
        unread=source.unread,
    )


def _header(blob: memoryview) -> tuple[Extent, Extent, Extent]:
    """(header, flatbuffer, bytes) of a blob, in this order and inside it."""
    if len(blob) < HEADER.size:
        raise FormatError(f"{len(blob)} bytes are no Vulkan blob", field="header")
    _, magic, length, offset, size, bytes_offset, bytes_size = HEADER.unpack_from(blob)
    if magic != b"VH00":
        raise FormatError(f"magic {magic!r}, not VH00", field="header")
    header, flatbuffer, data = Extent(0, length), Extent(offset, size), Extent(bytes_offset, bytes_size)
    if length < HEADER.size or header.end > offset or flatbuffer.end > bytes_offset:
        raise FormatError("header, flatbuffer and bytes overlap", field="header")
    cut(blob, data, "header.bytes_size")
    return header, flatbuffer, data


def _constant(
    table: FlatTable, blob: memoryview, bytes_at: Extent, named_data: Mapping[str, memoryview]
) -> Constant:
    """Read a `VkBytes` and find its bytes."""
    offset, length, key = table.integer("offset"), table.integer("length"), table.name("named_key")
    if offset == NAMED and table.has("named_key"):
        return Constant(offset=offset, length=length, named_key=key, data=named_data.get(key), at=None)
    extent = Extent(offset, length)
    data = cut(cut(blob, bytes_at, table.path()), extent, table.path())
    return Constant(offset=offset, length=length, named_key=key, data=data, at=extent.within(bytes_at))


def _values(root: FlatTable, constants: tuple[Constant, ...]) -> tuple[VkValue, ...]:
    members = [value.member("value", GRAPH_TYPES) for value in root.children("values")]
    return tuple(_value(kind, table, len(members), constants) for kind, table in members)


def _value(kind: str, table: FlatTable, count: int, constants: tuple[Constant, ...]) -> VkValue:
    """Read one value; a list of indices is checked against the `count` of values."""
    match kind:
        case "VkTensor":
            return _tensor(table, constants)
        case "IntList":
            return read_record(IntList, table)
        case "ValueList":
            return ValueList(table.indices("items", count))
        case "SymInt":
            return read_record(SymInt, table)
        case _:
            return read_shared(kind, table)  # type: ignore[no-any-return]


def _tensor(table: FlatTable, constants: tuple[Constant, ...]) -> VkTensor:
    """Read a tensor and cut its bytes from its constant."""
    tensor = VkTensor(
        dtype=table.enumerated("datatype", VkDataType),
        dims=table.integers("dims"),
        constant_id=table.integer("constant_id"),
        mem_obj_id=table.integer("mem_obj_id"),
        storage=table.enumerated("storage_type", VkStorageType),
        layout=table.enumerated("memory_layout", VkMemoryLayout),
        staging_dtype=table.enumerated("staging_datatype", VkDataType),
    )
    if len(tensor.dims) > MAX_RANK:
        raise table.error(f"{len(tensor.dims)} dimensions, more than {MAX_RANK}", "dims")
    if not tensor.constant:
        return tensor
    data = constants[table.index("constant_id", len(constants))].data
    if data is None:
        return tensor
    return replace(tensor, data=cut(data, Extent(0, tensor.nbytes), table.path("constant_id")))


def _call(table: FlatTable, count: int) -> OperatorCall:
    """Read one operator call."""
    return OperatorCall(
        node_id=table.integer("node_id"),
        name=table.name("name"),
        args=table.indices("args", count),
    )
