"""Every stable code is documented, and every documented code exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = [
    *(ROOT / "vkfuse" / "rewrite").rglob("*.py"),
    *(ROOT / "vkfuse" / "tables").rglob("*.py"),
    *(ROOT / "vkfuse" / "patch").rglob("*.py"),
]
SECTIONS = {
    "code": ("Why not better", "Repairs"),
    "how": ("How a table was made to fit",),
}


def _documented(titles: tuple[str, ...]) -> set[str]:
    text = (ROOT / "docs" / "optimize.md").read_text("utf-8")
    parts = [p for p in text.split("\n## ") if p.startswith(titles)]
    rows = [line.split("|")[1] for part in parts for line in part.splitlines() if line.startswith("| `")]
    return {code for row in rows for code in re.findall(r"`([a-z0-9-]+)`", row)}


def _used(pattern: str) -> set[str]:
    return {code for path in SOURCES for code in re.findall(pattern, path.read_text("utf-8"))}


@pytest.mark.parametrize(
    ("kind", "pattern", "elsewhere"),
    [
        ("code", r'code="([a-z0-9-]+)"', set()),
        (
            "how",
            r'"((?:zero-)?\w+-(?:flattened|wrapped|padded|split|folded|summed|gathered|shared|layout|scales|found))"[:,)]',
            {"constants-folded", "table-folded"},
        ),
    ],
)
def test_codes_in_the_source_are_the_documented_ones(kind, pattern, elsewhere):
    """A code that nobody can look up, or one that no longer exists, fails."""
    assert _used(pattern) - elsewhere == _documented(SECTIONS[kind]) - elsewhere
