"""One report, each format."""

from enum import StrEnum

from rich.console import Console

from vkfuse.report.markdown import render_markdown
from vkfuse.report.model import Report
from vkfuse.report.serial import dumps
from vkfuse.report.text import captured, render_text


class Format(StrEnum):
    """How a report is written."""

    TEXT = "text"
    JSON = "json"
    MARKDOWN = "markdown"


def render(report: Report, fmt: Format, console: Console) -> None:
    """Write the report to the console; anything but text on a terminal without wrapping or colour."""
    if fmt is Format.TEXT and console.is_terminal:
        render_text(report, console)
    else:
        console.file.write(rendered(report, fmt, width=console.width))


def rendered(report: Report, fmt: Format, *, width: int = 100) -> str:
    """Return the report as text, for a file: no colour, `width` columns."""
    if fmt is Format.JSON:
        return dumps(report)
    if fmt is Format.MARKDOWN:
        return render_markdown(report)
    return captured(width, lambda console: render_text(report, console))
