"""A report as one HTML page that needs no network: a treemap of the bytes, tables that sort, dark and light.

Texts come from untrusted files: each is escaped, those for the script stand in a block of JSON that cannot end early, and
the page's own policy runs no script and takes no style but the two whose hashes it names.
"""

import base64
import hashlib
import json
from collections.abc import Iterable, Iterator
from html import escape
from importlib.resources import files

from vkfuse import __version__
from vkfuse.report.bytes_map import Leaf
from vkfuse.report.document import Document
from vkfuse.report.section import Cell, Column, Section
from vkfuse.report.tone import tone
from vkfuse.report.visible import visible


def render_html(of: Document) -> str:
    """Return the document as a page."""
    title = of.front[0].title if of.front else "vkfuse report"
    front = [line for section in of.front for line in _section(section)]
    files = [line for path, sections in of.files for line in _file(path, sections)]
    return _page(
        title, [*_head(title), *_map(of.leaves), *front, *files], _data(title, of.leaves, diff=of.diff)
    )


def _file(path: str, sections: Iterable[Section]) -> Iterator[str]:
    """Yield one of several files, which opens at a click."""
    yield f"<details><summary>{_text(path)}</summary>"
    for section in sections:
        yield from _section(section)
    yield "</details>"


def _page(title: str, body: list[str], data: str) -> str:
    """Put the page together; its policy names the hashes of its style and its script."""
    style, script = (_asset(name) for name in ("page.css", "page.js"))
    policy = f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; base-uri 'none'"
    lines = (
        "<!doctype html>",
        '<html lang="en">',
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{_text(title)}</title>",
        f"<style>{style}</style>",
        *body,
        f"<footer>vkfuse {__version__}</footer>",
        f'<script type="application/json" id="data">{data}</script>',
        f"<script>{script}</script>",
        "</html>",
    )
    return "\n".join(lines) + "\n"


def _asset(name: str) -> str:
    return (files("vkfuse.report") / "page" / name).read_text("utf-8")


def _hash(text: str) -> str:
    """`sha256-...` of an inline element, as a content security policy names it."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _data(title: str, drawn: tuple[Leaf, ...], *, diff: bool) -> str:
    """Return what the script draws, as JSON in which no markup can begin."""
    rows = [
        {
            "path": [visible(name) for name in leaf.path],
            "kind": leaf.kind,
            "bytes": leaf.bytes,
            "before": leaf.before,
            "delta": leaf.delta,
            "area": leaf.area,
        }
        for leaf in drawn
    ]
    text = json.dumps({"title": visible(title), "diff": diff, "leaves": rows}, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _head(title: str) -> Iterator[str]:
    yield f"<header><h1>{_text(title)}</h1>"
    yield '<button id="theme" class="script" hidden>dark / light</button></header>'


def _map(drawn: tuple[Leaf, ...]) -> Iterator[str]:
    """Yield what the script fills: without it the tables stand alone."""
    hidden = "" if drawn else " hidden"
    yield '<div class="bar script" hidden>'
    yield '<input id="search" type="search" placeholder="search labels, tables, operators" aria-label="search">'
    yield f'<button id="up" hidden>zoom out</button></div><div class="script" hidden><div id="map"{hidden}></div>'
    yield '<p id="told" class="hint"></p><p id="legend" class="legend hint"></p></div>'


def _section(section: Section) -> Iterator[str]:
    """Yield a heading and all rows; numbers carry their value, by which the script sorts."""
    if section.columns:
        yield f"<section><h2>{_text(section.title)}</h2>"
        yield '<div class="scroll"><table class="sortable"><thead><tr>'
        yield from (f"<th{_number(c)}><button>{_text(c.title)}</button></th>" for c in section.columns)
        yield "</tr></thead><tbody>"
        for row, line in zip(section.rows, section.lines, strict=True):
            cells = zip(section.columns, row, line, strict=True)
            yield f"<tr>{''.join(_cell(*cell) for cell in cells)}</tr>"
        yield "</tbody></table></div></section>"
        return
    yield '<section><table class="keys"><tbody>'
    yield from (
        f"<tr><th>{_text(key)}</th><td{_tone(text)}>{_text(text)}</td></tr>" for key, text in section.lines
    )
    yield "</tbody></table></section>"


def _number(column: Column) -> str:
    return ' class="number"' if column.right else ""


def _cell(column: Column, cell: Cell, text: str) -> str:
    value = f' data-v="{cell}"' if column.right and isinstance(cell, int | float) else ""
    return f"<td{_number(column) or _tone(text)}{value}>{_text(text)}</td>"


def _tone(text: str) -> str:
    kind = tone(text)
    return f' class="{kind}"' if kind else ""


def _text(text: str) -> str:
    """Return text without any markup."""
    return escape(visible(text), quote=True)
