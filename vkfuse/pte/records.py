"""Tables of a flatbuffer as records: dataclasses whose fields stand in the order of the schema's, whatever their names."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final, TypeVar

from vkfuse.pte.flatbuffer import FlatTable
from vkfuse.pte.layout import PROGRAM, VULKAN
from vkfuse.pte.values import Bool, BoolList, Double, DoubleList, Int, String

_LAYOUT: Final = {**PROGRAM, **VULKAN}
_SHARED: Final[Mapping[str, type[Any]]] = {
    kind.__name__: kind for kind in (Int, Bool, Double, String, DoubleList, BoolList)
}
_Record = TypeVar("_Record")


@dataclass(frozen=True, slots=True)
class Node:
    """A table to be written: its name and fields, of which those that are None or not named stay absent.

    A field is what its schema type is in Python; a table is a Node, a vector of tables a sequence of them.
    """

    table: str
    fields: Mapping[str, Any]

    @classmethod
    def of(cls, record: Any, table: str = "") -> "Node":
        """Return the table that a record is, called as its class unless it is named; of None `Null`."""
        if record is None:
            return cls("Null", {})
        name = table or type(record).__name__
        values = (getattr(record, of.name) for of in fields(record))
        return cls(name, dict(zip(_LAYOUT[name], values, strict=False)))


def read_record(kind: type[_Record], table: FlatTable) -> _Record:
    """Read a table as a record."""
    names = (of.name for of in fields(kind))  # type: ignore[arg-type]
    return kind(**dict(zip(names, table.values(), strict=True)))


def read_shared(kind: str, table: FlatTable) -> Any:
    """Read a value that both schemas store alike: the union member `kind`."""
    return None if kind == "Null" else read_record(_SHARED[kind], table)
