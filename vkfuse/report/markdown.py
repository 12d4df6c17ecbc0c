"""A report as GitHub Markdown, for a comment or the summary of a job: a line, a table, details folded."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from vkfuse.quantities import counted
from vkfuse.report.document import Document
from vkfuse.report.section import Section
from vkfuse.report.visible import visible

MOST_BYTES: Final = 48_000  # GitHub takes 65,536 characters in a comment; a job's tool may add to it
_NOTE_BYTES: Final = 300  # that the note about what was cut takes at most


def render_markdown(of: Document) -> str:
    """Return the document as Markdown of less than 48,000 bytes; names from the file cannot make markup."""
    if not of.front:
        return ""
    first, *rest = (*of.front, *_of_files(of))
    parts = [_cut([f"### {_escaped(of.headline)}\n", *_table(first)], MOST_BYTES - _NOTE_BYTES)]
    room = MOST_BYTES - _NOTE_BYTES - _bytes(parts[0])
    for number, section in enumerate(rest):
        block = _folded(section)
        if _bytes(block) > room:
            parts.append(_shortened(section, room))
            parts.append(_note(len(rest) - number))
            break
        parts.append(block)
        room -= _bytes(block)
    return "".join(parts)


def _of_files(of: Document) -> Iterator[Section]:
    """Yield the sections of further files, each named after its file."""
    for path, sections in of.files:
        for number, section in enumerate(sections):
            yield replace(section, title=f"{path}: {section.title}" if number else section.title)


def _note(sections_left: int) -> str:
    """Say what is not there."""
    left = counted(sections_left, "section")
    return (
        f"_Cut at {MOST_BYTES:,} bytes: {left} cut short or left out. The report as HTML or JSON is whole._\n"
    )


def _shortened(section: Section, room: int) -> str:
    """Return the section with the rows that have room, nothing where none has."""
    for rows in (10, 3, 1):
        block = _folded(replace(section, rows=section.rows[:rows], noun=""))
        if _bytes(block) <= room:
            return block
    return ""


def _cut(lines: list[str], room: int) -> str:
    """Return the first lines that have room."""
    kept = []
    for line in lines:
        room -= _bytes(line) + 1
        if room < 0:
            break
        kept.append(f"{line}\n")
    return "".join(kept)


def _folded(section: Section) -> str:
    """Return a section that opens at a click."""
    title = _escaped(section.title)
    head = f"<details><summary>{title} ({len(section.rows):,})</summary>\n\n"
    return head + "".join(f"{line}\n" for line in _table(section)) + "</details>\n\n"


def _table(section: Section) -> Iterator[str]:
    """Yield a table, and the line that stands for the rest."""
    titles = [column.title for column in section.columns] or ["", ""]
    yield _row(titles)
    yield _row(["---:" if column.right else "---" for column in section.columns] or ["---", "---"])
    yield from (_row([_escaped(cell) for cell in row]) for row in section.shown)
    yield ""
    if section.rest:
        yield f"_{_escaped(section.rest)}_"
        yield ""


def _row(cells: list[str]) -> str:
    """`| a | b |`."""
    return f"| {' | '.join(cells)} |"


def _bytes(text: str) -> int:
    return len(text.encode(errors="backslashreplace"))


_MARKUP: Final = str.maketrans(
    {**{c: f"\\{c}" for c in "\\`*_[]|#~"}, "&": "&amp;", "<": "&lt;", "@": "&#64;", "\n": "<br>"}
)


def _escaped(text: str) -> str:
    """Return text without any markup; a mention or a link of GitHub's is none either."""
    shown = visible(text).translate(_MARKUP)
    return shown.replace("://", "&#58;//").replace("www.", "www&#46;")
