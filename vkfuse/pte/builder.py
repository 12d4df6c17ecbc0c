"""Flatbuffers from the schema tables: a tree of nodes becomes bytes by the flatbuffers package's Builder."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import flatbuffers
import numpy as np
from flatbuffers import number_types
from numpy.typing import NDArray

from vkfuse.pte.layout import Field, Kind, Layout, slots_of
from vkfuse.pte.records import Node

_FLAGS: Final = {
    "bool": number_types.BoolFlags,
    "byte": number_types.Int8Flags,
    "ubyte": number_types.Uint8Flags,
    "int": number_types.Int32Flags,
    "uint": number_types.Uint32Flags,
    "long": number_types.Int64Flags,
    "ulong": number_types.Uint64Flags,
    "double": number_types.Float64Flags,
}


@dataclass(frozen=True, slots=True)
class _Entry:
    """A field of a table: its bytes there, and how it is written."""

    width: int
    write: Callable[[], None]


_OFFSET: Final = 4  # bytes of a reference


def build(
    root: Node,
    layout: Layout,
    members: Mapping[str, tuple[str, ...]],
    identifier: bytes,
    *,
    shared: bool = True,
    by_size: bool = False,
) -> bytes:
    """Return the flatbuffer; `members` are the tables of each union field, in the order of the schema.

    Vectors and strings are written even where they are empty, as ExecuTorch does, and -0.0 keeps its sign. Equal strings
    are one where they are `shared`. `by_size`: larger fields of a table first, as flatc has them (ParseTable in
    idl_parser.cpp of flatbuffers), else in the order given.
    """
    return _Writer(layout, members, shared=shared, by_size=by_size).finished(root, identifier)


class _Writer:
    """One flatbuffer that is being built, children before the tables that refer to them."""

    def __init__(
        self, layout: Layout, members: Mapping[str, tuple[str, ...]], *, shared: bool, by_size: bool
    ) -> None:
        self._layout = layout
        self._members = members
        self._slots = {name: slots_of(fields) for name, fields in layout.items()}
        self._builder = flatbuffers.Builder(1 << 12)
        self._by_size = by_size
        self._string = self._builder.CreateSharedString if shared else self._builder.CreateString

    def finished(self, root: Node, identifier: bytes) -> bytes:
        """Return the bytes of the whole."""
        self._builder.Finish(self._table(root), file_identifier=identifier)
        return bytes(self._builder.Output())

    def _table(self, node: Node) -> int:
        """Write a table behind what it refers to; return where it stands."""
        fields = self._layout[node.table]
        given = [(name, fields[name], value) for name, value in node.fields.items() if value is not None]
        placed = [(name, field, value, self._target(field, value)) for name, field, value in given]
        self._builder.StartObject(self._slots[node.table])
        entries = [entry for each in placed for entry in self._entries(*each)]
        if self._by_size:
            entries.reverse()
            entries.sort(key=lambda entry: -entry.width)
        for entry in entries:
            entry.write()
        return int(self._builder.EndObject())

    def _entries(self, name: str, field: Field, value: Any, target: int) -> Iterator[_Entry]:
        """Yield what one field is in the open table: a scalar, or a reference to `target`, with the tag of a union."""
        if field.kind is Kind.SCALAR:
            width = np.dtype(field.codec.format).itemsize
            yield _Entry(width, partial(self._scalar, field.slot, field, value))
            return
        if isinstance(value, Node) and field.kind is Kind.UNION:
            tag = self._members[name].index(value.table)
            yield _Entry(1, partial(self._builder.PrependUint8Slot, field.slot - 1, tag, 0))
        yield _Entry(_OFFSET, partial(self._builder.PrependUOffsetTRelativeSlot, field.slot, target, 0))

    def _scalar(self, slot: int, field: Field, value: Any) -> None:
        """Write a number, unless it is the default that a reader takes an absent one for."""
        if value == field.default and not (isinstance(value, float) and math.copysign(1, value) < 0):
            return
        self._builder.Prepend(_FLAGS[field.element], value)
        self._builder.Slot(slot)

    def _target(self, field: Field, value: Any) -> int:
        """Write what a field refers to; 0 for a scalar, which stands in the table."""
        match field.kind:
            case Kind.SCALAR:
                return 0
            case Kind.STRING:
                return int(self._string(value))
            case Kind.SCALARS:
                return int(self._builder.CreateNumpyVector(_array(field, value)))
            case Kind.TABLES:
                return self._tables(value)
            case _:
                return self._table(value)

    def _tables(self, nodes: Sequence[Node]) -> int:
        """Write a vector of tables."""
        targets = [self._table(node) for node in nodes]
        self._builder.StartVector(4, len(targets), 4)
        for target in reversed(targets):
            self._builder.PrependUOffsetTRelative(target)
        return int(self._builder.EndVector())


def _array(field: Field, value: Any) -> NDArray[Any]:
    """The items of a vector as the schema stores them."""
    dtype = np.dtype(field.codec.format)
    if isinstance(value, bytes):
        return np.frombuffer(value, dtype)
    return np.array(value, dtype)
