"""A report on a terminal or in a log, with Rich."""

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Column, Table
from rich.text import Text

from vkfuse.report.document import Document
from vkfuse.report.section import Section
from vkfuse.report.tone import Tone, tone
from vkfuse.report.visible import visible

_NARROWEST = 14  # columns that a folded name keeps
_FOLDED = 6  # and one that has no such promise
_LEAST = 60  # columns of the whole: in fewer Rich cuts text off, where a terminal only breaks lines
_WIDE = 1000  # columns that no table needs
_STYLES: Final[Mapping[Tone, str]] = {"": "", "fails": "bold red", "wrong": "red"}


def render_text(of: Document, console: Console) -> None:
    """Print what stands in front; the console decides on width and colour."""
    widen(console)
    for index, section in enumerate(of.front):
        if index:
            console.print()
        for part in _parts(section, console.width - 2):
            console.print(part, soft_wrap=False)


def table_text(section: Section) -> str:
    """Return the table of a section by itself, as wide as it is."""
    return captured(_WIDE, lambda console: console.print(laid_out(section)))


def captured(width: int, draw: Callable[[Console], None]) -> str:
    """Return what is drawn on `width` columns, without colour."""
    console = Console(width=width, color_system=None, force_terminal=False, legacy_windows=False)
    with console.capture() as capture:
        draw(console)
    return "".join(f"{line.rstrip()}\n" for line in capture.get().splitlines())


def widen(console: Console, least: int = 0) -> None:
    """Give a console the columns that a table needs to lose no text, whatever COLUMNS says."""
    console.width = max(console.width, least, _LEAST)


def least_width(table: Table) -> int:
    """Return the columns that a table needs: its numbers whole, its names folded."""
    return sum(map(_least_width, table.columns))


def _least_width(column: Column) -> int:
    cells = [column.header, *column.cells]
    text = max(cell_len(str(cell)) for cell in cells) if column.no_wrap else column.min_width or _FOLDED
    return text + 2  # the padding


def _fitted(table: Table, width: int) -> Table:
    """Return the table, its numbers folded too where they and the narrowest names are wider than `width` columns."""
    if least_width(table) > width:
        for column in table.columns:
            column.no_wrap, column.min_width = False, None
    return table


def _parts(section: Section, width: int) -> Iterator[RenderableType]:
    """Yield the title, the table of `width` columns, and the line that stands for the rest."""
    yield Text(visible(section.title), style="bold")
    table = _fitted(laid_out(section), width) if section.columns else _pairs(section)
    yield Padding(table, (0, 0, 0, 2), expand=False)
    if section.rest:
        yield Text(f"  {section.rest}", style="dim")


def _pairs(section: Section) -> Table:
    """Lay out rows of (key, text)."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    for key, text in section.lines:
        table.add_row(key, _cell(text))
    return table


def laid_out(section: Section) -> Table:
    """Lay out rows under headings; numbers keep their width, names are folded."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for column in section.columns:
        table.add_column(
            column.title,
            justify="right" if column.right else "left",
            no_wrap=not column.fold,
            overflow="fold",
            min_width=_NARROWEST if column.fold else None,
        )
    for row in section.shown:
        table.add_row(*map(_cell, row))
    return table


def _cell(text: str) -> Text:
    """Return text that is no markup, coloured where it tells of a failure."""
    shown = visible(text)
    return Text(shown, style=_STYLES[tone(shown)])
