"""Flatbuffers from the schema tables: a tree of nodes becomes bytes by the flatbuffers package's Builder."""

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import flatbuffers
import numpy as np
from flatbuffers import number_types
from numpy.typing import NDArray

from vkfuse.pte.layout import Field, Kind, Layout, slots_of
from vkfuse.pte.node import Node

_FLAGS: Final = MappingProxyType(
    {
        "bool": number_types.BoolFlags,
        "byte": number_types.Int8Flags,
        "ubyte": number_types.Uint8Flags,
        "int": number_types.Int32Flags,
        "uint": number_types.Uint32Flags,
        "long": number_types.Int64Flags,
        "ulong": number_types.Uint64Flags,
        "double": number_types.Float64Flags,
    }
)


def build(root: Node, layout: Layout, members: Mapping[str, tuple[str, ...]], identifier: bytes) -> bytes:
    """Return the flatbuffer; `members` are the tables of each union field, in the order of the schema.

    Vectors and strings are written even where they are empty, as ExecuTorch does, and -0.0 keeps its sign.
    """
    return _Writer(layout, members).finished(root, identifier)


class _Writer:
    """One flatbuffer that is being built, children before the tables that refer to them."""

    def __init__(self, layout: Layout, members: Mapping[str, tuple[str, ...]]) -> None:
        self._layout = layout
        self._members = members
        self._slots = {name: slots_of(fields) for name, fields in layout.items()}
        self._builder = flatbuffers.Builder(1 << 12)

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
        for name, field, value, target in placed:
            self._slot(name, field, value, target)
        return int(self._builder.EndObject())

    def _slot(self, name: str, field: Field, value: Any, target: int) -> None:
        """Write one field of the table that is open: a scalar, or a reference to `target`."""
        if field.kind is Kind.SCALAR:
            self._scalar(field.slot, field, value)
            return
        if isinstance(value, Node) and field.kind is Kind.UNION:
            tag = self._members[name].index(value.table)
            self._builder.PrependUint8Slot(field.slot - 1, tag, 0)
        self._builder.PrependUOffsetTRelativeSlot(field.slot, target, 0)

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
                return int(self._builder.CreateSharedString(value))
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
