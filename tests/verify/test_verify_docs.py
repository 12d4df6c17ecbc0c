"""docs/verify.md names every status, behaviour and key that there is, and its example runs."""

import re
from dataclasses import fields
from pathlib import Path
from typing import get_args

import torch

from vkfuse.verify import behaviours
from vkfuse.verify.behaviours import Behaviour
from vkfuse.verify.compare import RELATIVE_LIMITS
from vkfuse.verify.verdict import (
    Applied,
    Departure,
    DeviceCheck,
    OutputError,
    Run,
    Status,
    TableCheck,
    Verification,
)

DOCS = Path(__file__).parents[2] / "docs"
TEXT = (DOCS / "verify.md").read_text()
KNOWN = [value for value in vars(behaviours).values() if isinstance(value, Behaviour)]


def test_every_behaviour_is_documented():
    """Each behaviour stands in the table, with whether it is by design, and names its source."""
    assert len(KNOWN) == len({behaviour.code for behaviour in KNOWN}) > 10
    rows = {
        row[0]: row[1]
        for row in re.findall(r"^\| `([a-z0-9-]+)` \| .* \|\s*(yes)?\s*\|$", TEXT, re.MULTILINE)
    }
    assert {
        b.code: "" if b.wrong else "yes" for b in KNOWN if b.code != "masked-row-zero"
    }.items() <= rows.items()
    source = re.compile(r"(glsl/|impl/|VulkanBackend)\w*\.(glslh?|cpp|yaml)")
    assert all(source.search(behaviour.source) for behaviour in KNOWN)


def test_every_refusal_is_documented():
    """What the executor says that the runtime does not load is in the table here, or among the codes of lint."""
    report = (DOCS / "report.md").read_text()
    sources = "".join(path.read_text() for path in Path(behaviours.__file__).parent.rglob("*.py"))
    found = set(re.findall(r'refused\(\s*"([a-z0-9-]+)"', sources))
    assert len(found) > 10
    assert sorted(code for code in found if f"`{code}`" not in TEXT + report) == []


def test_every_status_and_key_is_documented():
    """Statuses and the keys of the JSON."""
    keys = {
        f.name
        for kind in (Verification, Run, OutputError, TableCheck, Departure, DeviceCheck, Applied)
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
    assert printed.startswith("same OutputError(")
    assert "forward/0:0 et_vk.embedding_q4gsw.default" in printed
