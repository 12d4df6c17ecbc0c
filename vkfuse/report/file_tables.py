"""The tables that a file holds, as far as the bytes tell.

No names of parameters are stored, so a table is named after its content: the first digits of its key in the
named data, or the place where it stands.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

from vkfuse.pte.enums import VkDataType
from vkfuse.pte.model import KernelCall, Method, PteFile, Tensor
from vkfuse.pte.values import Bool, Int
from vkfuse.pte.vulkan import Graphs, OperatorCall, VkTensor, VulkanGraph
from vkfuse.report.model import Rung, TableRow


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """An operator that reads a table: where its weight, scales and group size stand."""

    consumer: str
    weight: int
    scales: tuple[int, ...] = ()
    group: int | None = None
    bits: int | None = None  # of a packed weight; None: as wide as its type
    linear: int | None = None  # where the flag stands that tells the two layouts of a packed weight apart
    rung: Rung | None = None  # None: `q4` for a fused pack, `gathered` for integer rows, else `untouched`


_GATHER, _MATMUL = "gather", "matmul"
_VULKAN: Final = {
    "et_vk.embedding_q4gsw.default": Reader(
        consumer=_GATHER, weight=0, scales=(1,), group=2, bits=4, linear=4
    ),
    "et_vk.linear_q4gsw.default": Reader(consumer=_MATMUL, weight=1, scales=(2,), group=3, bits=4),
    "et_vk.q4gsw_linear.default": Reader(consumer=_MATMUL, weight=1, scales=(2,), group=3, bits=4),
    "et_vk.linear_dq8ca_q4gsw.default": Reader(consumer=_MATMUL, weight=3, scales=(4, 5), group=6, bits=4),
    "et_vk.linear_q8csw.default": Reader(consumer=_MATMUL, weight=1, scales=(2,)),
    "aten.embedding.default": Reader(consumer=_GATHER, weight=0),
    "torchao.dequantize_affine.default": Reader(
        consumer="dequantize", weight=0, scales=(2, 3), rung="untouched"
    ),
}
_CPU: Final = {
    "aten::embedding": Reader(consumer=_GATHER, weight=0),
    "quantized_decomposed::embedding_byte": Reader(consumer=_GATHER, weight=0, scales=(1, 2)),
    "quantized_decomposed::embedding_2bit": Reader(consumer=_GATHER, weight=0, scales=(1, 2), bits=2),
    "quantized_decomposed::embedding_4bit": Reader(consumer=_GATHER, weight=0, scales=(1, 2), bits=4),
}
NAME_DIGITS: Final = 12  # of the SHA-256 of a table's bytes
_FUSED: Final = 4  # bits of a pack that Vulkan reads as it is
_INTEGERS: Final = ("int8", "uint8")


def tables_of(pte: PteFile, graphs: Graphs) -> tuple[TableRow, ...]:
    """Return a row for each table that a lookup or a quantized linear reads, the largest first."""
    found: dict[str, _Read] = {}
    for read in (*_vulkan_rows(graphs), *(read for method in pte.methods for read in _cpu_rows(method))):
        found[read.row.name] = _together(found.get(read.row.name), read)
    rows = (replace(read.row, bytes_after=sum(read.parts.values())) for read in found.values())
    return tuple(sorted(rows, key=lambda row: (-row.bytes_after, row.name)))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Read:
    """A table as its readers so far have it; `parts` are the bytes of its constants, each once, by where they stand."""

    row: TableRow
    parts: Mapping[str, int]


def _together(known: _Read | None, read: _Read) -> _Read:
    """Return a table that two operators read."""
    if known is None:
        return read
    row = replace(
        known.row,
        consumers=tuple(dict.fromkeys((*known.row.consumers, *read.row.consumers))),
        methods=tuple(dict.fromkeys((*known.row.methods, *read.row.methods))),
        group_size=known.row.group_size or read.row.group_size,
        how=tuple(dict.fromkeys((*known.row.how, *read.row.how))),
    )
    return _Read(row=row, parts={**known.parts, **read.parts})


def _vulkan_rows(graphs: Graphs) -> Iterator[_Read]:
    """Yield a row for each read of a table in a Vulkan delegate."""
    for (method, index), graph in graphs.items():
        copies = {c.args[1]: c.args[0] for c in graph.chain if c.name == _PREPACK and len(c.args) > 1}
        for call in graph.chain:
            reader = _VULKAN.get(call.name)
            if reader is not None:
                yield from _vulkan_row(graph, call, reader, copies, (method, index))


_PREPACK: Final = "et_vk.prepack.default"


def _vulkan_row(
    graph: VulkanGraph, call: OperatorCall, reader: Reader, copies: dict[int, int], where: tuple[str, int]
) -> Iterator[_Read]:
    """Yield the row of one call, if its weight is a constant."""

    def constant(position: int) -> VkTensor | None:
        index = call.args[position] if position < len(call.args) else None
        value = graph.values[copies.get(index, index)] if index is not None else None
        return value if isinstance(value, VkTensor) and value.constant else None

    weight = constant(reader.weight)
    if weight is None:
        return
    scales = [tensor for tensor in map(constant, reader.scales) if tensor is not None]
    place = f"{where[0]}/{where[1]}"
    read = _row(
        method=where[0],
        name=constant_name(graph, weight, place),
        dims=weight.dims,
        dtype=weight.dtype.label,
        reader=reader,
        group=_integer(graph, call, reader.group),
        parts={constant_name(graph, t, place, digits=None): t.nbytes for t in (weight, *scales)},
        wide=weight.dtype.bytes * 8 if weight.dtype is not VkDataType.UNSET else 0,
    )
    yield replace(read, row=replace(read.row, how=_layout(graph, call, reader.linear)))


def constant_name(
    graph: VulkanGraph, tensor: VkTensor, where: str, *, digits: int | None = NAME_DIGITS
) -> str:
    """Return the first digits of a constant's key, or where it stands."""
    key = graph.constants[tensor.constant_id].named_key
    return key[:digits] or f"{where} constant {tensor.constant_id}"


def _layout(graph: VulkanGraph, call: OperatorCall, position: int | None) -> tuple[str, ...]:
    """Return the code of the flat layout for a weight that is read so."""
    if position is None or position >= len(call.args):
        return ()
    return ("flat-layout",) if graph.values[call.args[position]] == Bool(value=False) else ()


def _integer(graph: VulkanGraph, call: OperatorCall, position: int | None) -> int | None:
    """Return an integer argument."""
    if position is None or position >= len(call.args):
        return None
    value = graph.values[call.args[position]]
    return value.value if isinstance(value, Int) else None


def _cpu_rows(method: Method) -> Iterator[_Read]:
    """Yield a row for each read of a table by a CPU kernel."""
    for call in method.instructions:
        if not isinstance(call, KernelCall):
            continue
        reader = _CPU.get(method.operators[call.op_index].name)
        if reader is not None:
            yield from _cpu_row(method, call, reader)


def _cpu_row(method: Method, call: KernelCall, reader: Reader) -> Iterator[_Read]:
    """Yield the row of one call, if its weight is a constant."""

    def constant(position: int) -> Tensor | None:
        value = method.values[call.args[position]] if position < len(call.args) else None
        return value if isinstance(value, Tensor) and value.constant else None

    weight = constant(reader.weight)
    if weight is None:
        return
    scales = [tensor for tensor in map(constant, reader.scales) if tensor is not None]
    yield _row(
        method=method.name,
        name=_constant_name(weight),
        dims=weight.sizes,
        dtype=weight.scalar_type.label,
        reader=reader,
        group=None,
        parts={_constant_name(tensor): tensor.nbytes for tensor in (weight, *scales)},
        wide=weight.scalar_type.bytes * 8,
    )


def _constant_name(tensor: Tensor) -> str:
    """Name a constant of the program; all methods of a file share them."""
    return tensor.name or f"constant {tensor.data_buffer_idx}"


def _row(
    *,
    method: str,
    name: str,
    dims: tuple[int, ...],
    dtype: str,
    reader: Reader,
    group: int | None,
    parts: Mapping[str, int],
    wide: int,
) -> _Read:
    """Return a row; the last axis of a packed weight counts bytes of several values."""
    bits = reader.bits or wide
    values = 8 // reader.bits if reader.bits else 1
    row = TableRow(
        name=name,
        shape=(*dims[:-1], dims[-1] * values) if dims else (),
        bits=bits,
        group_size=group,
        consumers=(reader.consumer,),
        rung=_rung(bits, dtype, reader),
        how=(),
        reason="",
        bytes_before=None,
        bytes_after=0,
        proof=None,
        methods=(method,),
    )
    return _Read(row=row, parts=parts)


def _rung(bits: int, dtype: str, reader: Reader) -> Rung:
    """Return the rung that the way of reading amounts to."""
    if reader.rung is not None:
        return reader.rung
    if bits == _FUSED and reader.group is not None:
        return "q4"
    return "gathered" if dtype in _INTEGERS else "untouched"
