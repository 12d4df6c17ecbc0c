"""The document behind every renderer: titled tables, whose columns say what their cells are and how those are spelled."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from functools import partial
from typing import Any, Final

from vkfuse.quantities import counted, mebibytes, percent, share, signed

_EMPTY: Final = ("", "-")
_SHOWN: Final = 20  # rows of a long table; the rest is one line, and all of it is in JSON, CSV and HTML

Cell = str | int | float | None


class Kind(Enum):
    """What the cells of a column are."""

    WORD = auto()
    NAME = auto()  # that may be folded
    COUNT = auto()
    SIZE = auto()  # in bytes
    CHANGE = auto()  # of a size
    PERCENT = auto()  # a change in percent, None where there was nothing
    SHARE = auto()  # a part of 1
    BITS = auto()  # a weight, None where that is not known
    FIGURE = auto()  # a number in its own words


_SPELLED: Final[Mapping[Kind, Callable[[Any], str]]] = {
    Kind.COUNT: lambda number: "" if number is None else f"{number:,}",
    Kind.SIZE: mebibytes,
    Kind.CHANGE: signed,
    Kind.PERCENT: percent,
    Kind.SHARE: share,
    Kind.BITS: lambda number: "" if number is None else f"{number:.2f}",
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
        """Return a cell as text; a word among numbers (`gone`) as it is."""
        return cell if isinstance(cell, str) else _SPELLED.get(self.kind, str)(cell)


name, count, size, change, figure, percentage, portion, bits = (
    partial(Column, kind=kind)
    for kind in (
        *(Kind.NAME, Kind.COUNT, Kind.SIZE, Kind.CHANGE, Kind.FIGURE),
        *(Kind.PERCENT, Kind.SHARE, Kind.BITS),
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A table of cells under a title; without columns its rows are (key, text).

    Of more than 20 rows a page shows the first, where there is a `noun` for the others, and their sum in `summed`.
    """

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    noun: str = ""
    summed: str = ""

    @property
    def lines(self) -> tuple[tuple[str, ...], ...]:
        """All rows as text."""
        return tuple(map(self._spelled, self.rows))

    @property
    def shown(self) -> tuple[tuple[str, ...], ...]:
        """The rows that a page shows, as text."""
        return tuple(map(self._spelled, self.rows[: self._most]))

    @property
    def rest(self) -> str:
        """`and 12 more labels, 792 B`: the rows that a page does not show."""
        left = () if self._most is None else self.rows[self._most :]
        text = f"and {counted(len(left), f'more {self.noun}')}" if left else ""
        if left and self.summed:
            at = [column.title for column in self.columns].index(self.summed)
            text += f", {mebibytes(sum(cell for row in left if isinstance(cell := row[at], int)))}"
        return text

    @property
    def _most(self) -> int | None:
        return _SHOWN if self.noun else None

    def _spelled(self, row: tuple[Cell, ...]) -> tuple[str, ...]:
        if not self.columns:
            return tuple(map(str, row))
        return tuple(column.spelled(cell) for column, cell in zip(self.columns, row, strict=True))


def listing(
    title: str,
    columns: tuple[Column, ...],
    rows: Iterable[tuple[Cell, ...]],
    noun: str = "",
    summed: str = "",
) -> Section:
    """Return a section of `rows`, without the columns that say nothing in any."""
    every = [*rows]
    kept = [
        at for at, column in enumerate(columns) if any(column.spelled(row[at]) not in _EMPTY for row in every)
    ]
    return Section(
        title=title,
        columns=tuple(columns[at] for at in kept),
        rows=tuple(tuple(row[at] for at in kept) for row in every),
        noun=noun,
        summed=summed,
    )
