"""The document behind every renderer: titled tables, whose columns say what their cells are and how those are spelled."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from functools import partial
from typing import Any, Final

from vkfuse.report.sizes import counted, mebibytes, signed

_EMPTY: Final = ("", "-")
_SHOWN: Final = 20  # rows of a long table; the rest is one line, and all of it is in the JSON

Cell = str | int | float | None


class Kind(Enum):
    """What the cells of a column are."""

    WORD = auto()
    NAME = auto()  # that may be folded
    COUNT = auto()
    SIZE = auto()  # in bytes
    CHANGE = auto()  # of a size
    FIGURE = auto()  # a number in its own words


_SPELLED: Final[Mapping[Kind, Callable[[Any], str]]] = {
    Kind.COUNT: lambda number: "" if number is None else f"{number:,}",
    Kind.SIZE: mebibytes,
    Kind.CHANGE: signed,
}


@dataclass(frozen=True, slots=True)
class Column:
    """A column: numbers stand right, names may be folded."""

    title: str
    kind: Kind = Kind.WORD

    @property
    def right(self) -> bool:
        """Whether the cells are numbers."""
        return self.kind not in {Kind.WORD, Kind.NAME}

    @property
    def fold(self) -> bool:
        """Whether the cells may be folded."""
        return self.kind is Kind.NAME

    def spelled(self, cell: Cell) -> str:
        """Return a cell as text."""
        return _SPELLED.get(self.kind, str)(cell)


name, count, size, change, figure = (
    partial(Column, kind=kind) for kind in (Kind.NAME, Kind.COUNT, Kind.SIZE, Kind.CHANGE, Kind.FIGURE)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A table of text under a title; without columns its rows are (key, text)."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    rest: str = ""


def listing(
    title: str,
    columns: tuple[Column, ...],
    rows: Iterable[tuple[Cell, ...]],
    noun: str = "",
    summed: str = "",
) -> Section:
    """Spell `rows`, without the columns that say nothing in any.

    A `noun` for what a row is stands for those beyond the first 20, with the sum of the column `summed`.
    """
    every = [*rows]
    shown, left = (every[:_SHOWN], every[_SHOWN:]) if noun else (every, [])
    cells = [tuple(c.spelled(cell) for c, cell in zip(columns, row, strict=True)) for row in shown]
    kept = [at for at, _ in enumerate(columns) if any(row[at] not in _EMPTY for row in cells)]
    rest = f"and {counted(len(left), f'more {noun}')}" if left else ""
    if left and summed:
        at = [column.title for column in columns].index(summed)
        rest += f", {mebibytes(sum(cell for row in left if isinstance(cell := row[at], int)))}"
    return Section(
        title=title,
        columns=tuple(columns[at] for at in kept),
        rows=tuple(tuple(row[at] for at in kept) for row in cells),
        rest=rest,
    )
