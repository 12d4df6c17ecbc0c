"""Programs of the sweep (tools/sweep) whose files a real runtime was given: sweep_verdicts.json, made by record.py."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "sweep" / "run.py"
PROGRAMS = json.loads((Path(__file__).parent / "sweep_verdicts.json").read_text("utf-8"))
LATEST = 2_000_000  # numbers from here on begin with the kinds that came last
FLOWS = ("vkfuse", "stock")
RUNTIME = "1.5.0"  # that of the verdicts


def _certified(programs, folder):
    """By program and flow: whether vkfuse takes the file for right; of its own flow, whether there is one."""
    specs, output = folder / "specs.jsonl", folder / "verdicts.jsonl"
    told = ({**of["spec"], "flows": [flow for flow in FLOWS if flow in of]} for of in programs)
    specs.write_text("\n".join(map(json.dumps, told)))
    command = [sys.executable, TOOL, "--specs", specs, "--runtime", RUNTIME, "--runner", "", "-o", output]
    subprocess.run(command, check=True, timeout=1800)
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    return {(row["id"], row["flow"]): row.get("certified", False) for row in rows}


def _check(programs, folder):
    certified = _certified(programs, folder)
    told = {(p["spec"]["id"], flow): p[flow] for p in programs for flow in FLOWS if flow in p}
    assert {each: certified[each] for each in told} == {each: what == "right" for each, what in told.items()}


@pytest.mark.slow
def test_the_runtimes_verdicts(tmp_path):
    """What the runtime computed wrongly or did not take is not certified, the rest is: every tenth, and the latest."""
    latest = [each for each in PROGRAMS if each["spec"]["id"] >= LATEST and "vkfuse" in each]
    _check([*PROGRAMS[::10], *(each for each in latest if each not in PROGRAMS[::10])], tmp_path)


@pytest.mark.slow
@pytest.mark.zoo
def test_all_of_the_runtimes_verdicts(tmp_path):
    """The same of all programs."""
    _check(PROGRAMS, tmp_path)
