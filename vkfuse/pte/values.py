"""Values that programs and Vulkan graphs store alike, and where bytes stand."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Extent:
    """Bytes [offset, end) of a file, or of a blob inside it."""

    offset: int
    size: int

    @property
    def end(self) -> int:
        """Offset after the last byte."""
        return self.offset + self.size

    def within(self, container: "Extent") -> "Extent":
        """Return the same bytes, counted from where the offsets of `container` count from."""
        return Extent(container.offset + self.offset, self.size)


NOWHERE: Final = Extent(0, 0)  # of what is in no file yet


@dataclass(frozen=True, slots=True)
class Int:
    """An integer."""

    value: int


@dataclass(frozen=True, slots=True)
class Bool:
    """A boolean."""

    value: bool


@dataclass(frozen=True, slots=True)
class Double:
    """A 64-bit float."""

    value: float


@dataclass(frozen=True, slots=True)
class String:
    """A string."""

    value: str


@dataclass(frozen=True, slots=True)
class DoubleList:
    """A list of 64-bit floats."""

    items: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class BoolList:
    """A list of booleans."""

    items: tuple[bool, ...]
