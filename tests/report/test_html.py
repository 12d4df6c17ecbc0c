"""The HTML report: one file, whole without a network, and names that try to be markup; in a browser where there is one."""

import hashlib
import json
import re
from base64 import b64decode
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from browser import browser, chromium

from vkfuse.commands.report import report_files
from vkfuse.measure.ledger import LedgerEntry
from vkfuse.report import model
from vkfuse.report.bytes_map import leaves
from vkfuse.report.format import Format
from vkfuse.report.render import rendered
from vkfuse.report.sections import sections

needs_browser = pytest.mark.skipif(
    chromium() is None, reason="no Chromium: apt-get install chromium, or VKFUSE_CHROMIUM=PATH"
)
HOSTILE = (
    "<script>window.hacked=1</script>",
    "</script><script>window.hacked=2</script>",
    '"><img src=x onerror="window.hacked=3">',
    "<!--<script>",
    "javascript:window.hacked=4",
    "&lt;b&gt; & 'quote' \u202e\x1b[31m",
    "{{7*7}} ${window.hacked=5}",
    "]]>\u2028window.hacked=6//",
)


class _Read(HTMLParser):
    """Elements with their attributes, and the text of cells, as any reader of HTML has them."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.elements, self.cells, self._in = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._in.append(tag)
        if tag in {"td", "th", "button"}:
            self.cells.append("")

    def handle_endtag(self, tag):
        while self._in and self._in.pop() != tag:
            pass

    def handle_data(self, data):
        if self._in and self._in[-1] in {"td", "th", "button"}:
            self.cells[-1] += data


def _hostile(full):
    """A report all of whose names are hostile."""
    text = "\n".join(HOSTILE)
    ledger = tuple(LedgerEntry(label=n, kind="constant", bytes=100, group=n, what=n) for n in HOSTILE)
    tables = tuple(replace(full.tables[0], name=n, reason=n) for n in HOSTILE)
    return replace(full, ledger=ledger, tables=tables, notes=HOSTILE, output=replace(full.output, path=text))


def _data(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page)[1])


def test_every_cell_is_there(full):
    """Each cell of each section stands on the page as it is spelled, all rows and not the first twenty."""
    read = _Read(rendered(full, Format.HTML))
    wanted = [cell for section in sections(full) for line in section.lines for cell in line]
    titles = [column.title for section in sections(full) for column in section.columns]
    assert sorted(filter(None, [*wanted, *titles, "dark / light", "zoom out"])) == sorted(
        filter(None, read.cells)
    )


def test_one_file_without_network(full):
    """Nothing points out of the page, and its policy names the hashes of the one style and the one script."""
    page = rendered(full, Format.HTML)
    read = _Read(page)
    assert not {"link", "img", "iframe", "object", "embed", "base", "form"} & {
        tag for tag, _ in read.elements
    }
    assert not [
        a for _, attrs in read.elements for a in attrs if a in {"src", "href", "style"} or a[:2] == "on"
    ]
    (policy,) = (a["content"] for tag, a in read.elements if a.get("http-equiv"))
    style, script = re.search(r"<style>(.*?)</style>", page, re.DOTALL)[1], page.rpartition("<script>")[2]
    for text in (style, script.partition("</script>")[0]):
        assert any(
            b64decode(h) == hashlib.sha256(text.encode()).digest()
            for h in re.findall(r"sha256-(\S+?)'", policy)
        )
    assert policy.startswith("default-src 'none';")


def test_names_cannot_be_markup(full):
    """Hostile names add no element and no attribute, end no script, and are read back as they are shown."""
    page, plain = (rendered(report, Format.HTML) for report in (_hostile(full), full))
    kinds = {(tag, *attrs) for tag, attrs in _Read(page).elements}
    assert kinds <= {(tag, *attrs) for tag, attrs in _Read(plain).elements}
    assert page.count("</script>") == 2
    assert "\u202e" not in page
    assert "\x1b" not in page
    shown = [leaf["path"][-1] for leaf in _data(page)["leaves"]]
    assert shown[:5] == [*HOSTILE[:5]]
    assert set(HOSTILE[:5]) <= set(_Read(page).cells)


def test_leaves_sum_to_the_file(files):
    """What the treemap draws is the whole file; of two files their change, and what is gone too."""
    one = report_files(files / "tied.pte")
    assert sum(leaf.bytes for leaf in leaves(one)) == one.output.bytes
    both = report_files(files / "fused.pte", files / "folded.pte")
    drawn = leaves(both)
    assert sum(leaf.bytes or 0 for leaf in drawn) == both.output.bytes
    assert sum(leaf.before or 0 for leaf in drawn) == both.baseline.bytes
    assert sum(leaf.delta for leaf in drawn) == both.diff.total.delta
    assert [leaf.path[-1] for leaf in drawn if leaf.bytes is None] == ["forward constant float32[64,64]"]
    data = _data(rendered(both, Format.HTML))
    assert data["diff"] is True
    assert [leaf["area"] for leaf in data["leaves"]] == [leaf.area for leaf in drawn]


def test_a_report_without_bytes_is_a_page():
    """A report of nothing is a page that says so little."""
    assert _data(rendered(model.Report(runtime="1.5"), Format.HTML))["leaves"] == []


@pytest.fixture(scope="module")
def page():
    """One browser for all tests."""
    with browser() as opened:
        yield opened


def _write(tmp_path, report):
    path = tmp_path / "report.html"
    path.write_text(rendered(report, Format.HTML), "utf-8")
    return path


@needs_browser
def test_hostile_names_in_a_browser(full, page, tmp_path):
    """No script of a name runs, wherever it is shown: in tables, in the treemap, in what is told of a rectangle."""
    page.open(_write(tmp_path, _hostile(full)))
    count = page.run("document.querySelectorAll('#map rect').length")
    assert count >= len(HOSTILE)
    for number in range(count):
        page.run(
            f"document.querySelectorAll('#map g')[{number}]?.dispatchEvent(new MouseEvent('mouseover', {{bubbles: true}}))"
        )
    page.run(
        "document.querySelectorAll('#map g.leaf')[0].dispatchEvent(new MouseEvent('click', {bubbles: true}))"
    )
    assert page.run("typeof window.hacked") == "undefined"
    assert page.run("document.querySelectorAll('img, iframe').length") == 0
    assert page.complaints == []
    assert {url.partition(":")[0] for url in page.requests} == {"file"}
    page.run("search.value = ''")


@needs_browser
def test_treemap_in_a_browser(files, page, tmp_path):
    """The rectangles fill the map by their bytes; a click zooms into a group, Escape out of it."""
    report = report_files(files / "tied.pte", files / "fused.pte")
    page.open(_write(tmp_path, report))
    sizes = page.run(
        "[...document.querySelectorAll('#map > svg > g > rect:not(.body)')]"
        ".map((r) => [r.getAttribute('width'), r.getAttribute('height')])"
    )
    area = sum(float(width) * float(height) for width, height in sizes)
    whole = page.run(
        "document.getElementById('map').clientWidth * document.getElementById('map').clientHeight"
    )
    assert area == pytest.approx(whole, rel=0.01)
    names = "[...document.querySelectorAll('#map > svg > g')].map((g) => g.getAttribute('aria-label').split(':')[0])"
    outside = page.run(names)
    assert outside[0] == "constant"
    page.run("document.querySelector('#map g.group').dispatchEvent(new MouseEvent('click', {bubbles: true}))")
    inside = page.run(names)
    assert all(name.startswith("constant / ") for name in inside)
    assert page.run("document.getElementById('told').textContent").startswith("constant: ")
    page.run("document.dispatchEvent(new KeyboardEvent('keydown', {key: 'Escape'}))")
    assert page.run(names) == outside
    assert page.complaints == []


@needs_browser
def test_search_and_sorting_in_a_browser(full, page, tmp_path):
    """A search leaves the rows that hold it, and dims the others' rectangles; a heading sorts by value, not by spelling."""
    page.open(_write(tmp_path, full))
    rows = "[...document.querySelectorAll('.sortable tbody tr')].filter((r) => !r.hidden).map((r) => r.textContent)"
    every = page.run(rows)
    page.run("search.value = 'FLOAT32[40]'; search.dispatchEvent(new Event('input'))")
    assert page.run(rows) == [row for row in every if "float32[40]" in row]
    assert page.run("document.querySelectorAll('#map .missed').length") > 0
    page.run("document.dispatchEvent(new KeyboardEvent('keydown', {key: 'Escape'}))")
    assert page.run(rows) == every
    section = "[...document.querySelectorAll('section')].find((s) => s.textContent.startsWith('Bytes'))"
    table = f"{section}.querySelector('table')"
    sizes = f"[...{table}.tBodies[0].rows].map((r) => Number(r.cells[2].dataset.v))"
    before = page.run(sizes)
    for wanted in (sorted(before, reverse=True), sorted(before)):
        page.run(f"{table}.tHead.rows[0].cells[2].firstElementChild.click()")
        assert page.run(sizes) == wanted
    assert page.complaints == []


@needs_browser
def test_dark_and_light_in_a_browser(full, page, tmp_path):
    """The page follows the reader's preference, and the button turns it."""
    path, back = _write(tmp_path, full), "getComputedStyle(document.body).backgroundColor"
    seen = []
    for scheme in ("light", "dark"):
        page.open(path)
        page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        seen.append(page.run(back))
        page.run("document.getElementById('theme').click()")
        seen.append(page.run(back))
    light, turned_dark, dark, turned_light = seen
    assert light == turned_light != dark == turned_dark
    assert page.complaints == []
