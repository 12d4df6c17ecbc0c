"""docs/verify.md names every status and key that there is, and its example runs."""

import re
from dataclasses import fields
from pathlib import Path
from typing import get_args

import torch

from vkfuse.measure.audit import TableCheck
from vkfuse.verify.compare import RELATIVE_LIMITS
from vkfuse.verify.verdict import (
    Applied,
    Departure,
    DeviceCheck,
    OutputCheck,
    Run,
    Status,
    Verification,
)

DOCS = Path(__file__).parents[2] / "docs"
TEXT = (DOCS / "verify.md").read_text()


def test_every_status_and_key_is_documented():
    """Statuses and the keys of the JSON."""
    keys = {
        f.name
        for kind in (Verification, Run, OutputCheck, TableCheck, Departure, DeviceCheck, Applied)
        for f in fields(kind)
    }
    assert sorted(name for name in {*keys, *get_args(Status)} if f"`{name}`" not in TEXT) == []


def test_limits_are_the_documented_ones():
    """The table of tolerances has the numbers of the code."""
    for dtype, limit in RELATIVE_LIMITS.items():
        (row,) = [
            line
            for line in TEXT.splitlines()
            if re.match(rf"\|.*\b{str(dtype).removeprefix('torch.')}\b", line)
        ]
        assert float(row.split("|")[2]) == limit


def test_the_python_example_runs(lowered, tmp_path, monkeypatch, capsys):
    """The example as it stands, on a real file."""
    (example,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    file = lowered("lookup")
    (tmp_path / "model.pte").write_bytes(file.data)
    torch.export.save(file.exported, tmp_path / "model.pt2")
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "docs/verify.md", "exec"), {})  # noqa: S102 - our own example
    printed = capsys.readouterr().out
    assert printed.startswith("same OutputCheck(")
    assert "forward/0:0 et_vk.embedding_q4gsw.default" in printed
