"""A table of a flatbuffer to be written, as data."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Node:
    """A table to be written: its name and fields, of which those that are None or not named stay absent.

    A field is what its schema type is in Python; a table is a Node, a vector of tables a sequence of them.
    """

    table: str
    fields: Mapping[str, Any]
