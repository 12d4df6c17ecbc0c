"""The matrix of tables (tools/matrix): what becomes of each program, and a sample of them made again."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GOLDEN = json.loads((ROOT / "tests" / "optimize" / "matrix.json").read_text("utf-8"))
PADDED = 54  # 127 rows, looked up with zero points beside a folded head
RUNTIME = "1.5.0"  # that of the verdicts


def _verdicts(numbers, folder):
    """What vkfuse makes of programs now, by number, in one process."""
    output = folder / "verdicts.jsonl"
    tool = ROOT / "tools" / "matrix" / "run.py"
    command = [sys.executable, tool, "--only", *map(str, numbers), "--runtime", RUNTIME, "-o", output]
    subprocess.run(command, check=True, timeout=3600)
    return {row["number"]: row for row in map(json.loads, output.read_text().splitlines())}


def _check(rows, folder):
    made = _verdicts([row["number"] for row in rows], folder)
    for row in rows:
        wanted = {key: value for key, value in row.items() if key != "runtime"}
        assert {key: made[row["number"]][key] for key in wanted} == wanted
        assert {*made[row["number"]]["proofs"]} == {"exact"}


def test_every_program_is_lowered_loads_and_is_right():
    """No program of the matrix is refused; each file loads, verifies, and was right on the real runtime."""
    assert len(GOLDEN) >= 200
    assert all((row["loads"], row["right"], row["runtime"]) == (True, True, "right") for row in GOLDEN)


def test_a_sample_of_the_matrix(tmp_path):
    """The rungs, codes and reasons of some programs are those that are recorded, the tables shown to be exact."""
    _check([*GOLDEN[::24], GOLDEN[PADDED]], tmp_path)


@pytest.mark.zoo
def test_all_of_the_matrix(tmp_path):
    """The same of all programs."""
    _check(GOLDEN, tmp_path)


def test_the_document_is_of_the_record():
    """docs/tables.md is what the tool writes of the recorded verdicts."""
    sys.path[:0] = [str(ROOT / "tools" / "matrix")]
    try:
        import run  # noqa: PLC0415 - the tool's own

        assert run.document(GOLDEN) == (ROOT / "docs" / "tables.md").read_text("utf-8")
    finally:
        del sys.path[0]
