"""A flatbuffer reader that trusts nothing: offsets are checked, references lead forward, work is bounded.

References are unsigned and non-zero, so a walk cannot cycle; `Budget` bounds what shared references could
blow up.
Format: https://flatbuffers.dev/internals/.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from struct import Struct
from struct import error as StructError  # noqa: N812 - the module's exception is spelled in lower case
from typing import Any, Final, TypeVar

from vkfuse.errors import FormatError
from vkfuse.pte.layout import Field, Kind, Layout, slots_of

_U16: Final = Struct("<H")
_I32: Final = Struct("<i")
_U32: Final = Struct("<I")

_TABLE_COST: Final = 16  # one decoded table, in elements: what a dataclass costs beside an int
_CEILING: Final = 1 << 23  # elements in one file: half a million tables, some hundred MB decoded
_MOST_SLOTS: Final = 16  # no table of the schemas has more fields; a newer writer's others are not read
_LONGEST_NAME: Final = 512  # names are repeated in labels and messages
_Enum = TypeVar("_Enum", bound=IntEnum)
_PER_BYTE: Final = 8  # no writer shares tables, so an honest file needs less than 2 elements a byte


@dataclass(slots=True)
class Budget:
    """How many more elements may be decoded; one budget serves a file with all its delegates."""

    left: int

    @classmethod
    def of_size(cls, size: int) -> "Budget":
        """Return the budget of a file of `size` bytes."""
        return cls(min(_CEILING, _PER_BYTE * size + 4096))

    def spend(self, amount: int, where: str | None = None) -> None:
        """Take `amount` elements; FormatError when the file asks for more than any honest one."""
        self.left -= amount
        if self.left < 0:
            raise FormatError("more elements than a file of this size can hold", field=where or "")


class Source:
    """One flatbuffer in memory: the bytes, the schema, the budget; each string and vtable decoded once.

    `unread` is the path of the first table met that has fields beyond the schema's.
    """

    __slots__ = ("budget", "data", "layout", "slots", "strings", "unread", "vtables")

    def __init__(self, data: memoryview, layout: Layout, budget: Budget) -> None:
        self.data = data
        self.layout = layout
        self.budget = budget
        self.strings: dict[int, str] = {}
        self.vtables: dict[int, tuple[int, ...]] = {}
        self.slots = {name: slots_of(fields) for name, fields in layout.items()}
        self.unread = ""

    def root(self, name: str, identifier: bytes) -> "FlatTable":
        """Return the root table `name`; the bytes after the root offset must be `identifier`."""
        if bytes(self.data[4:8]) != identifier:
            what = "not a flatbuffer" if self.data else "empty, no flatbuffer"
            raise FormatError(f"{what} with identifier {identifier.decode()}", field=name)
        return FlatTable(self, name, _number(_U32, self.data, 0, name), None, name)


def _number(codec: Struct, data: memoryview, at: int, where: str) -> int:
    """Return the integer at `at`; FormatError outside the data."""
    try:
        number: int = codec.unpack_from(data, at)[0]
    except StructError:
        raise FormatError(f"offset {at} is outside the {len(data)} bytes", field=where) from None
    return number


class FlatTable:
    """One table: fields by name, absent ones at their default, every access checked."""

    __slots__ = ("_at", "_fields", "_slots", "_source", "parent", "step")

    def __init__(self, source: Source, name: str, at: int, parent: "FlatTable | None", step: str) -> None:
        self._source = source
        self._fields = source.layout[name]
        self._at = at
        self.parent = parent
        self.step = step
        source.budget.spend(_TABLE_COST)
        self._slots = self._vtable()
        if any(self._slots[source.slots[name] :]) and not source.unread:
            source.unread = self.path() or name

    def path(self, name: str = "") -> str:
        """`execution_plan[0].values[12].sizes`: where this table, or its field `name`, stands."""
        steps = [name] if name else []
        table: FlatTable | None = self
        while table is not None and table.parent is not None:
            steps.append(table.step)
            table = table.parent
        return ".".join(reversed(steps))

    def error(self, message: str, name: str = "") -> FormatError:
        """Return an error at this table, or at its field `name`."""
        return FormatError(message, field=self.path(name))

    def _vtable(self) -> tuple[int, ...]:
        """Offsets of the fields relative to the table, by slot."""
        data, where = self._source.data, self.step
        if not 0 < self._at <= len(data) - 4:
            raise self.error(f"table at {self._at} is outside the {len(data)} bytes")
        vtable = self._at - _number(_I32, data, self._at, where)
        known = self._source.vtables.get(vtable)
        if known is not None:
            return known
        size = _number(_U16, data, vtable, where) if 0 <= vtable <= len(data) - 4 else 0
        if size < 4 or size % 2 or vtable + size > len(data):
            raise self.error(f"bad vtable at {vtable}")
        count = min(size // 2 - 2, _MOST_SLOTS)
        slots: tuple[int, ...] = Struct(f"<{count}H").unpack_from(data, vtable + 4)
        self._source.vtables[vtable] = slots
        return slots

    def _position(self, slot: int, size: int, name: str) -> int:
        """Absolute position of a field of `size` bytes, 0 where it is absent."""
        offset = self._slots[slot] if slot < len(self._slots) else 0
        if offset == 0:
            return 0
        if self._at + offset + size > len(self._source.data):
            raise self.error("outside the data", name)
        return self._at + offset

    def _field(self, name: str, kind: Kind) -> Field:
        """Return the field, which must be stored as `kind`."""
        field = self._fields[name]
        if field.kind is not kind:
            raise TypeError(f"{name} is stored as {field.kind}")
        return field

    def _target(self, name: str, field: Field) -> int:
        """Where the reference in a field leads, 0 where it is absent."""
        position = self._position(field.slot, 4, name)
        if position == 0:
            return 0
        return self._follow(position, name)

    def _follow(self, position: int, name: str) -> int:
        """Where the reference at `position` leads: forward, and to at least four bytes."""
        data = self._source.data
        offset = _number(_U32, data, position, name)
        if offset == 0 or position + offset > len(data) - 4:
            raise self.error(f"reference to {position + offset}, outside the data", name)
        return position + offset

    def _vector(self, name: str, field: Field, item_size: int) -> tuple[int, int]:
        """(position of the first item, count) of a vector; (0, 0) where it is absent."""
        start = self._target(name, field)
        if start == 0:
            return 0, 0
        data = self._source.data
        count = _number(_U32, data, start, name)
        if count * item_size > len(data) - start - 4:
            raise self.error(f"{count} items do not fit the data", name)
        return start + 4, count

    def has(self, name: str) -> bool:
        """Whether the field is stored."""
        return self._position(self._fields[name].slot, 1, name) != 0

    def values(self) -> Iterator[Any]:
        """Yield the fields of a table of numbers, strings and vectors of numbers, each as the schema types it."""
        readers: dict[Kind, Callable[[str], Any]] = {
            Kind.SCALAR: self.integer,
            Kind.STRING: self.text,
            Kind.SCALARS: self.integers,
        }
        yield from (readers[field.kind](name) for name, field in self._fields.items())

    def integer(self, name: str) -> Any:
        """Return a scalar, also a bool or a double."""
        field = self._field(name, Kind.SCALAR)
        position = self._position(field.slot, field.codec.size, name)
        return _number(field.codec, self._source.data, position, name) if position else field.default

    def enumerated(self, name: str, enum: type[_Enum]) -> _Enum:
        """Return an enum field; FormatError for a number without a name."""
        number = self.integer(name)
        try:
            return enum(number)
        except ValueError:
            raise self.error(f"unknown {enum.__name__} {number}", name) from None

    def index(self, name: str, count: int) -> int:
        """Return an index; FormatError where it is not in 0..count-1."""
        return self._checked(name, (self.integer(name),), count)[0]

    def indices(self, name: str, count: int, *, lowest: int = 0) -> tuple[int, ...]:
        """Return a vector of indices; FormatError where one is not in lowest..count-1."""
        return self._checked(name, self.integers(name), count, lowest)

    def _checked(self, name: str, ids: tuple[int, ...], count: int, lowest: int = 0) -> tuple[int, ...]:
        for index in ids:
            if not lowest <= index < count:
                raise self.error(f"index {index} of {count}", name)
        return ids

    def integers(self, name: str) -> tuple[Any, ...]:
        """Return a vector of scalars, also of bools or doubles; empty where it is absent."""
        field = self._field(name, Kind.SCALARS)
        first, count = self._vector(name, field, field.codec.size)
        self._source.budget.spend(count, name)
        return Struct(f"<{count}{field.codec.format[1:]}").unpack_from(self._source.data, first)

    def blob(self, name: str) -> tuple[int, memoryview]:
        """(offset in the flatbuffer, bytes) of a vector of bytes, not copied; (0, empty) if absent."""
        first, count = self._vector(name, self._field(name, Kind.SCALARS), 1)
        return first, self._source.data[first : first + count]

    def text(self, name: str) -> str:
        """Return a string; empty where it is absent."""
        first, count = self._vector(name, self._field(name, Kind.STRING), 1)
        known = self._source.strings.get(first)
        if known is None:
            known = self._source.strings[first] = self._decode(name, first, count)
        return known

    def name(self, name: str) -> str:
        """Return a string that names something; FormatError where it is absurdly long."""
        text = self.text(name)
        if len(text) > _LONGEST_NAME:
            raise self.error(f"a name of {len(text)} characters", name)
        return text

    def _decode(self, name: str, first: int, count: int) -> str:
        """Return the UTF-8 text of `count` bytes."""
        self._source.budget.spend(1 + count // 8, name)
        try:
            return str(self._source.data[first : first + count], "utf-8")
        except UnicodeDecodeError:
            raise self.error("not UTF-8", name) from None

    def child(self, name: str) -> "FlatTable | None":
        """Return a table, None where it is absent."""
        field = self._field(name, Kind.TABLE)
        target = self._target(name, field)
        return FlatTable(self._source, field.element, target, self, name) if target else None

    def children(self, name: str) -> Iterator["FlatTable"]:
        """Yield the tables of a vector."""
        field = self._field(name, Kind.TABLES)
        first, count = self._vector(name, field, 4)
        for index in range(count):
            step = f"{name}[{index}]"
            yield FlatTable(self._source, field.element, self._follow(first + 4 * index, step), self, step)

    def member(self, name: str, members: tuple[str, ...]) -> tuple[str, "FlatTable"]:
        """(table name, table) of a union; FormatError where nothing or an unknown member is stored."""
        field = self._field(name, Kind.UNION)
        position = self._position(field.slot - 1, 1, name)
        tag = self._source.data[position] if position else 0
        if not 0 < tag < len(members):
            raise self.error(f"unknown member {tag} of the union", name)
        target = self._target(name, field)
        if target == 0:
            raise self.error("missing", name)
        return members[tag], FlatTable(self._source, members[tag], target, self, name)
