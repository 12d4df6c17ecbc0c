"""One report, each format."""

from collections.abc import Callable, Mapping
from typing import Final

from rich.console import Console

from vkfuse.report.delimited import render_csv, render_tsv
from vkfuse.report.document import Document, document
from vkfuse.report.format import Format
from vkfuse.report.markdown import render_markdown
from vkfuse.report.model import Report, Reports
from vkfuse.report.serial import dumps
from vkfuse.report.text import captured, render_text


def _html(of: Document) -> str:
    from vkfuse.report.html import render_html  # noqa: PLC0415 - a page that few reports are

    return render_html(of)


_LAID_OUT: Final[Mapping[Format, Callable[[Document], str]]] = {
    Format.MARKDOWN: render_markdown,
    Format.CSV: render_csv,
    Format.TSV: render_tsv,
    Format.HTML: _html,
}
_PAGES: Final = (Format.TEXT, Format.MARKDOWN)  # that people read from top to bottom


def render(report: Report | Reports, fmt: Format, console: Console, *, every: bool = False) -> None:
    """Write the report to the console; anything but text on a terminal without wrapping or colour."""
    if fmt is Format.TEXT and console.is_terminal:
        render_text(document(report, every=every), console)
    else:
        console.file.write(
            rendered(report, fmt, width=None if console.soft_wrap else console.width, every=every)
        )


def rendered(report: Report | Reports, fmt: Format, *, width: int | None = None, every: bool = False) -> str:
    """Return the report as text, without colour, on `width` columns or as a log; `every` row where pages show the first."""
    if fmt is Format.JSON:
        return dumps(report)
    laid_out = document(report, every=every or fmt not in _PAGES)
    if fmt in _LAID_OUT:
        return _LAID_OUT[fmt](laid_out)
    return captured(width, lambda console: render_text(laid_out, console))
