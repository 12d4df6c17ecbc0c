"""A report as GitHub Markdown, for the summary of a job."""

from collections.abc import Iterator

from vkfuse.report.model import Report
from vkfuse.report.section import Section
from vkfuse.report.sections import sections
from vkfuse.report.visible import visible


def render_markdown(report: Report) -> str:
    """Return the report as Markdown; names from the file cannot make markup."""
    return "\n".join(line for section in sections(report) for line in _lines(section))


def _lines(section: Section) -> Iterator[str]:
    """Yield a heading, a table, and the line that stands for the rest."""
    yield f"### {_escaped(section.title)}"
    yield ""
    titles = [column.title for column in section.columns] or ["", ""]
    rules = ["---:" if column.right else "---" for column in section.columns] or ["---", "---"]
    yield _row(titles)
    yield _row(rules)
    yield from (_row([_escaped(cell) for cell in row]) for row in section.shown)
    yield ""
    if section.rest:
        yield f"_{_escaped(section.rest)}_"
        yield ""


def _row(cells: list[str]) -> str:
    """`| a | b |`."""
    return f"| {' | '.join(cells)} |"


def _escaped(text: str) -> str:
    """Return text without any markup."""
    shown = visible(text).replace("&", "&amp;").replace("<", "&lt;")
    for character in "\\`*_[]|#~":
        shown = shown.replace(character, f"\\{character}")
    return shown.replace("\n", "<br>")
