"""Reports as a reader sees them: golden files, and names that try to be markup."""

import json
import os
from collections import Counter
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from vkfuse.quantities import mebibytes, signed
from vkfuse.report import model
from vkfuse.report.format import Format
from vkfuse.report.render import render, rendered
from vkfuse.report.sections import sections

GOLDEN = Path(__file__).parent / "golden"
HOSTILE = "\x1b[31m[bold]a|b`c`<script>\n# d\u202e*e*"


@pytest.mark.parametrize(
    ("name", "fmt", "width"),
    [("full-100.txt", Format.TEXT, 100), ("full-80.txt", Format.TEXT, 80), ("full.md", Format.MARKDOWN, 100)],
)
def test_full_report_is_as_reviewed(full, name, fmt, width):
    """The whole text, at two widths, and the Markdown; UPDATE_GOLDEN=1 writes them anew."""
    text = rendered(full, fmt, width=width)
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.mkdir(exist_ok=True)
        (GOLDEN / name).write_text(text)
    assert text == (GOLDEN / name).read_text()


@pytest.mark.parametrize("width", [60, 80, 100, 140])
def test_text_keeps_to_the_width(full, width):
    """No line is longer than the console, none ends in blanks, and no name is cut."""
    lines = rendered(full, Format.TEXT, width=width).splitlines()
    assert max(map(len, lines)) <= width
    assert all(line == line.rstrip() for line in lines)
    assert "…" not in "".join(lines)
    if width >= 80:
        assert "83.0 MiB  0.668 MiB" in "\n".join(lines)
        assert "model.embed_tokens" in "\n".join(lines)


def test_names_stay_whole_in_a_log(full):
    """Without a terminal a line is as long as the names of its table, so that they can be searched for."""
    long = replace(
        full.tables[0], name="model.decoder.layers.0.self_attention.query_key_value_projection.weight"
    )
    report = replace(full, tables=(long,))
    assert long.name in rendered(report, Format.TEXT)
    assert max(map(len, rendered(report, Format.TEXT).splitlines())) < 160


def test_a_title_is_one_line(full):
    """A file's name with a line break begins no line of its own, which a job's log could take for a command."""
    report = replace(full, output=replace(full.output, path="a\n::error::b.pte"))
    assert not any(line.lstrip().startswith("::error") for line in rendered(report, Format.TEXT).splitlines())


@pytest.mark.parametrize("width", [0, 1, 20, 60, 70, 80])
def test_narrow_text_is_whole(full, width):
    """Every character of a wide report is in a narrow one: a console of few columns, or none, cuts nothing off."""
    narrow, wide = (rendered(full, Format.TEXT, width=columns) for columns in (width, 400))
    assert Counter("".join(narrow.split())) == Counter("".join(wide.split()))


def test_sections_stand_in_reading_order(full):
    """What decides a release first, where the bytes are last."""
    assert [section.title for section in sections(full)] == [
        "model.pte: Vulkan runtime of ExecuTorch 1.5",
        "Findings",
        "Changed loadability",
        "On disk and at run time",
        "Changed bytes",
        "Same size, other content",
        "Changed tables",
        "Changed operators",
        "Changed types and packing",
        "Tables",
        "How, and why not better",
        "Lookups",
        "Embedded shaders",
        "On the CPU",
        "Repairs",
        "Bytes",
        "Notes",
    ]
    keys = [key for key, _ in sections(full)[0].rows]
    assert keys[:4] == ["Input", "Size", "Before", "Loadable"]


def test_empty_report_is_empty():
    """A report of nothing says nothing, in text and Markdown."""
    assert rendered(model.Report(runtime="1.5"), Format.TEXT) == ""
    assert rendered(model.Report(runtime="1.5"), Format.MARKDOWN) == ""


def test_names_cannot_be_markup(full):
    """Escape sequences, Rich markup, table borders and HTML from a file's names are shown, never obeyed."""
    table = replace(full.tables[0], name=HOSTILE, reason=HOSTILE)
    hostile = replace(full, tables=(table,), notes=(HOSTILE,), output=replace(full.output, path=HOSTILE))
    text = rendered(hostile, Format.TEXT, width=140)
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "[bold]a|b`c`<script>" in text
    markdown = rendered(hostile, Format.MARKDOWN)
    assert "<script>" not in markdown
    assert "\\[bold\\]a\\|b\\`c\\`&lt;script>" in markdown
    row = next(line for line in markdown.splitlines() if "33984 x 640" in line)
    assert row.count("|") - row.count("\\|") == 8
    encoded = rendered(hostile, Format.JSON)
    assert encoded.isascii()
    assert json.loads(encoded)["tables"][0]["name"] == HOSTILE


def test_colour_only_on_a_terminal(full):
    """A terminal gets colour, a pipe plain text, JSON neither wrapping nor colour."""

    def written(fmt, *, terminal):
        stream = StringIO()
        render(full, fmt, Console(file=stream, force_terminal=terminal, width=80, color_system="standard"))
        return stream.getvalue()

    assert "\x1b[" in written(Format.TEXT, terminal=True)
    assert written(Format.TEXT, terminal=False) == rendered(full, Format.TEXT, width=80)
    assert written(Format.JSON, terminal=True) == rendered(full, Format.JSON)
    assert written(Format.MARKDOWN, terminal=True) == rendered(full, Format.MARKDOWN)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0.000 MiB"),
        (1, "1 B"),
        (10_000, "10,000 B"),
        (10_486, "0.010 MiB"),
        (1 << 20, "1.00 MiB"),
        (438_304_768, "418.0 MiB"),
        (5 << 30, "5,120.0 MiB"),
        (None, "-"),
    ],
)
def test_sizes_are_in_mebibytes(size, text):
    """MiB with as many digits as tell sizes apart; bytes where MiB would say nothing."""
    assert mebibytes(size) == text


def test_changes_carry_their_sign():
    """A change says in which direction."""
    assert [signed(n) for n in (0, 12, -12, 3 << 20)] == ["0", "+12 B", "-12 B", "+3.00 MiB"]


@pytest.mark.parametrize(
    ("loadable", "text"),
    [
        (model.Loadable(ok=True), "yes"),
        (model.Loadable(ok=False, missing=("a", "b", "c", "d", "e")), "no: missing a, b, c and 2 more"),
    ],
)
def test_verdict_in_words(full, loadable, text):
    """The verdict of the file follows the verdict of the one before."""
    rows = dict(sections(replace(full, loadable=loadable))[0].rows)
    assert rows["Loadable"] == f"no: missing aten.logical_not.default -> {text}"


def test_what_was_not_checked_is_said_first(full):
    """A file that nobody ran, or of which a method was not run, says so in the first line, with the reason."""
    unrun = model.Verify(
        ran=False, ok=None, max_abs_error=None, max_rel_error=None, skipped=("no example", "b")
    )
    rows = sections(replace(full, verify=unrun))[0].rows
    assert rows[:2] == (("Verified", "NOT CHECKED: no example"), ("", "b"))
    assert [key for key, _ in rows].count("Verified") == 1
    assert sections(full)[0].rows[0][0] == "Input"


def test_wrong_results_are_not_called_loadable(full):
    """A file that loads and computes something else is said to."""
    (wrong,) = (finding for finding in full.loadable.findings if finding.effect == "wrong")
    report = replace(full, baseline=None, loadable=model.Loadable(ok=False, findings=(wrong,)))
    assert dict(sections(report)[0].rows)["Loadable"] == "loads, but computes something else (see below)"


def test_markdown_is_a_line_a_table_and_folded_details(full):
    """The first line says it all; each further section opens at a click."""
    lines = rendered(full, Format.MARKDOWN).splitlines()
    assert lines[0] == (
        "### FAILED: model.pte: 348.1 MiB (-69.9 MiB, -16.7%), NOT loadable on 1.5, 2 operators on the CPU; "
        "1 of 2 checks failed"
    )
    assert lines[1:4] == ["", "|  |  |", "| --- | --- |"]
    folded = [line for line in lines if line.startswith("<details>")]
    assert len(folded) == len(sections(full)) - 1
    assert lines.count("</details>") == len(folded)


@pytest.mark.parametrize("size", [10, 100, 400, 4000])
def test_markdown_has_room_in_a_comment(full, size):
    """However long the names, the text stays below 48,000 bytes, says what was cut, and leaves no table open."""
    tables = tuple(
        replace(full.tables[0], name="abcdefghi"[n] * size, reason="\u20ac" * size) for n in range(9)
    )
    notes = tuple("note " * size for _ in range(20))
    text = rendered(replace(full, tables=tables, notes=notes), Format.MARKDOWN)
    assert len(text.encode()) < 48_000
    assert text.count("<details>") == text.count("</details>")
    assert ("_Cut at 48,000 bytes" in text) is (size >= 400)


def test_markdown_mentions_and_links_nobody(full):
    """A name from a file notifies nobody and leads nowhere."""
    note = "@someone see https://example.com and www.example.com <img src=x>"
    text = rendered(replace(full, notes=(note,)), Format.MARKDOWN)
    assert "&#64;someone see https&#58;//example.com and www&#46;example.com &lt;img src=x>" in text


def test_the_full_report_has_codes_that_exist(full):
    """Every code in the report of these tests is one of vkfuse's."""
    known = (Path(__file__).parents[2] / "docs").glob("*.md")
    documented = "".join(path.read_text() for path in known)
    codes = {
        *(finding.code for finding in full.loadable.findings),
        *(operator.reason for operator in full.delegation.cpu.values()),
        *(repair.code for repair in full.repairs),
        *(code for table in full.tables for code in (*table.how, *table.reason.split(":")[:1]) if code),
        *(change.code for change in full.diff.findings),
    }
    assert sorted(code for code in codes if f"`{code}`" not in documented) == []
