"""A table of a flatbuffer to be written, as data."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True, slots=True)
class Node:
    """A table to be written: its name and fields, of which those that are None or not named stay absent.

    A field is what its schema type is in Python; a table is a Node, a vector of tables a sequence of them.
    """

    table: str
    fields: Mapping[str, Any]

    @classmethod
    def of(cls, record: Any) -> "Node":
        """Return the table that a dataclass is, by its name and those of its fields."""
        return cls(type(record).__name__, {of.name: getattr(record, of.name) for of in fields(record)})
