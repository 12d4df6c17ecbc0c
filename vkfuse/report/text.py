"""A report on a terminal or in a log, with Rich."""

from collections.abc import Iterator

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from vkfuse.report.model import Report
from vkfuse.report.section import Section
from vkfuse.report.sections import sections

_NARROWEST = 14  # columns that a folded name keeps
_STYLES = {"FAILED": "bold red", "no": "bold red", "fails": "bold red", "wrong": "red", "loads,": "red"}


def render_text(report: Report, console: Console) -> None:
    """Print the report; the console decides on width and colour."""
    for index, section in enumerate(sections(report)):
        if index:
            console.print()
        for part in _parts(section):
            console.print(part, soft_wrap=False)


def visible(text: str) -> str:
    """Show what would steer a terminal as a replacement character: names come from the file."""
    return "".join(
        character if character.isprintable() or character == "\n" else "\N{REPLACEMENT CHARACTER}"
        for character in text
    )


def _parts(section: Section) -> Iterator[RenderableType]:
    """Yield the title, the table, and the line that stands for the rest."""
    yield Text(visible(section.title), style="bold")
    yield Padding(_table(section) if section.columns else _pairs(section), (0, 0, 0, 2), expand=False)
    if section.rest:
        yield Text(f"  {section.rest}", style="dim")


def _pairs(section: Section) -> Table:
    """Lay out rows of (key, text)."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    for key, text in section.rows:
        table.add_row(key, _cell(text))
    return table


def _table(section: Section) -> Table:
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
    for row in section.rows:
        table.add_row(*map(_cell, row))
    return table


def _cell(text: str) -> Text:
    """Return text that is no markup, coloured where it tells of a failure."""
    shown = visible(text)
    words = shown.replace(":", " ").split()
    style = next((_STYLES[word] for word in words[:1] + words[-1:] if word in _STYLES), "")
    return Text(shown, style=style)
