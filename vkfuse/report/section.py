"""What the renderers lay out: titled tables of text."""

from dataclasses import dataclass, replace

_EMPTY = ("", "-")


@dataclass(frozen=True, slots=True)
class Column:
    """A column: numbers stand right, names may be folded."""

    title: str
    right: bool = False
    fold: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A table under a title; without columns its rows are (key, text)."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    rest: str = ""

    def without_empty_columns(self) -> "Section":
        """Leave out the columns that say nothing in any row."""
        kept = [n for n, _ in enumerate(self.columns) if any(row[n] not in _EMPTY for row in self.rows)]
        if len(kept) == len(self.columns):
            return self
        return replace(
            self,
            columns=tuple(self.columns[n] for n in kept),
            rows=tuple(tuple(row[n] for n in kept) for row in self.rows),
        )
