"""A report on a terminal or in a log, with Rich."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import IO, Final

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
_WORD = 72  # and that a word in a log may take
_ROOM = 28  # and that a longer text has there
_LOG = 110  # columns where there is no terminal to ask, if names need no more
_LEAST = 60  # columns of the whole: in fewer Rich cuts text off, where a terminal only breaks lines
_WIDE = 1000  # columns that no table needs
_STYLES: Final[Mapping[Tone, str]] = {"": "", "fails": "bold red", "wrong": "red"}


def render_text(of: Document, console: Console) -> None:
    """Print what stands in front; the console decides on width and colour."""
    drawn = [[*_parts(section)] for section in of.front]
    widen(console, (part.renderable for parts in drawn for part in parts if isinstance(part, Padding)))
    for index, parts in enumerate(drawn):
        if index:
            console.print()
        for part in parts:
            console.print(part, soft_wrap=False)


def table_text(section: Section) -> str:
    """Return the table of a section by itself, as wide as it is."""
    return captured(_WIDE, lambda console: console.print(laid_out(section)))


def log(stream: IO[str] | None = None) -> Console:
    """A console where there is no terminal to ask: its lines are as long as their names need."""
    return Console(
        file=stream, width=_LOG, soft_wrap=True, color_system=None, force_terminal=False, legacy_windows=False
    )


def captured(width: int | None, draw: Callable[[Console], None]) -> str:
    """Return what is drawn on `width` columns, or in a log, without colour."""
    console = log()
    if width is not None:
        console.width, console.soft_wrap = width, False
    with console.capture() as capture:
        draw(console)
    return "".join(f"{line.rstrip()}\n" for line in capture.get().splitlines())


def widen(console: Console, parts: Iterable[RenderableType]) -> None:
    """Give a console the columns that its tables need to lose no text, and fit the tables, indented by two, to it.

    A log is as wide as the words of its tables, so that names can be found in it; a terminal only where numbers are.
    """
    tables = [part for part in parts if isinstance(part, Table) and part.show_header]
    whole = (_taken(table, _words(table, _ROOM)) + 2 for table in tables if console.soft_wrap)
    console.width = max(console.width, _LEAST, *whole)
    for table in tables:
        _fit(table, console.width - 2)


def _taken(table: Table, widths: Mapping[int, int]) -> int:
    """Return the columns of a table whose folded ones take `widths`."""
    return sum(widths.get(at, _longest(column)) + 2 for at, column in enumerate(table.columns))


def _longest(column: Column, split: bool = False) -> int:
    """Return the columns of the longest cell, or `split` the longest word of one."""
    texts = map(str, (column.header, *column.cells))
    return max(cell_len(part) for text in texts for part in ((text.split() or [""]) if split else [text]))


def _words(table: Table, room: int = 0) -> dict[int, int]:
    """Return the columns for what may be folded, by its place: whole words, unless one is very long, and some `room`."""
    folded = {at: column for at, column in enumerate(table.columns) if not column.no_wrap}
    words = {at: min(_longest(column, split=True), _WORD) for at, column in folded.items()}
    return {at: max(word, min(_longest(folded[at]), room)) for at, word in words.items()}


def _fit(table: Table, width: int) -> None:
    """Let columns that fold share what the others leave: their words whole where there is room, and the narrowest first.

    Where not even a few letters fit Rich folds the numbers too.
    """
    widths = _words(table)
    if _taken(table, widths) > width:
        widths = {at: min(least, _NARROWEST) for at, least in widths.items()}
    left = width - _taken(table, widths)
    if left < 0:
        for column in table.columns:
            column.no_wrap = False
        return
    wanted = {at: _longest(table.columns[at]) for at in widths}
    while left and (narrow := [at for at in widths if widths[at] < wanted[at]]):
        widths[min(narrow, key=widths.__getitem__)] += 1
        left -= 1
    for at, given in widths.items():
        table.columns[at].width = given


def _parts(section: Section) -> Iterator[RenderableType]:
    """Yield the title, the table, and the line that stands for the rest."""
    yield Text(visible(section.title, besides=""), style="bold")
    yield Padding(laid_out(section) if section.columns else _pairs(section), (0, 0, 0, 2), expand=False)
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
        )
    for row in section.shown:
        table.add_row(*map(_cell, row))
    return table


def _cell(text: str) -> Text:
    """Return text that is no markup, coloured where it tells of a failure."""
    shown = visible(text)
    return Text(shown, style=_STYLES[tone(shown)])
