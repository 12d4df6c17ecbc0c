"""Values without references, which both schemas store alike."""

from collections.abc import Callable
from typing import Final

from vkfuse.pte.flatbuffer import FlatTable
from vkfuse.pte.node import Node
from vkfuse.pte.values import Bool, BoolList, Double, DoubleList, Int, String

Scalar = Int | Bool | Double | String | DoubleList | BoolList | None

_READERS: Final[dict[str, Callable[[FlatTable], Scalar]]] = {
    "Null": lambda _: None,
    "Int": lambda table: Int(table.integer("int_val")),
    "Bool": lambda table: Bool(bool(table.integer("bool_val"))),
    "Double": lambda table: Double(table.number("double_val")),
    "String": lambda table: String(table.text("string_val")),
    "DoubleList": lambda table: DoubleList(table.numbers("items")),
    "BoolList": lambda table: BoolList(table.flags("items")),
}


def read_scalar(kind: str, table: FlatTable) -> Scalar:
    """Read the union member `kind`, one of those above."""
    return _READERS[kind](table)


def scalar_node(value: Scalar) -> Node:
    """Return the union member that `read_scalar` reads as `value`."""
    match value:
        case None:
            return Node("Null", {})
        case DoubleList(items) | BoolList(items):
            return Node(type(value).__name__, {"items": items})
        case _:
            name = type(value).__name__
            return Node(name, {f"{name.lower()}_val": value.value})
