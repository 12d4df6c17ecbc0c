"""docs/report.md names every key and kind that there is."""

import re
from pathlib import Path
from typing import get_args

from vkfuse.measure.claims import LedgerKind
from vkfuse.report.serial import json_schema

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "report.md").read_text()


def test_every_key_and_kind_is_documented():
    """Top-level keys, the keys of their members, and the kinds of the ledger."""
    schema = json_schema()
    keys = set(schema["properties"])
    for definition in schema["$defs"].values():
        keys |= set(definition["properties"])
    assert sorted(key for key in keys if f"`{key}`" not in TEXT) == []
    assert sorted(kind for kind in get_args(LedgerKind) if f"`{kind}`" not in TEXT) == []


def test_the_python_example_runs(files, monkeypatch, tmp_path):
    """The example as it stands, on real files."""
    (example,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    (tmp_path / "model.pte").write_bytes((files / "fused.pte").read_bytes())
    (tmp_path / "released.pte").write_bytes((files / "folded.pte").read_bytes())
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "docs/report.md", "exec"), {})  # noqa: S102 - our own example
