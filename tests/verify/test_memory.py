"""Memory that a verification takes, in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import programs
import pytest
import stock
import torch
from stock_programs import Dequantized, as_lookup
from torch import nn

from vkfuse import optimize
from vkfuse.program.load import from_exported
from vkfuse.quiet import quiet

ROOT = Path(__file__).parents[2]
ROWS, COLUMNS, GROUP = 131072, 1024, 32
TOKENS, WORDS = 1024, 32768

_GROWTH = """
import sys
from pathlib import Path
from vkfuse.quiet import quiet
from vkfuse.program.load import load
from vkfuse.verify.verify import VerifyOptions, verify_file

def resident(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))

small, large = sys.argv[1:]
with quiet(verbose=False):
    exported = load(Path(small + ".pt2")).exported
    assert verify_file(small + ".pte", exported).ok  # imports and pools that any model needs
    exported = load(Path(large + ".pt2")).exported
for weight in exported.state_dict.values():  # mapped, and resident once it is read: the program's own memory
    weight.max()
before = resident("VmRSS")
assert verify_file(large + ".pte", exported, VerifyOptions(seeds=1)).ok
print(resident("VmHWM") - before)
"""


def _saved(stem, exported, data):
    """Write a program and its file; return their common stem."""
    stem.with_suffix(".pte").write_bytes(data)
    with quiet(verbose=False):
        torch.export.save(exported, stem.with_suffix(".pt2"))
    return str(stem)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="resident memory is read from /proc")
def test_memory_stays_under_twice_the_constants(lowered, tmp_path):
    """A table of 131072 x 1024 is never whole in any other form: not as int8 (134 MB), less as float32 (537 MB)."""
    small = lowered("lookup-dynamic")
    module = Dequantized(ROWS, COLUMNS, GROUP, as_lookup)
    with quiet(verbose=False):
        exported = torch.export.export(module, (torch.tensor([[0, 5, ROWS - 1, 77]]),))
        data = stock.stock_file(exported)
    constants = ROWS * COLUMNS // 2 + ROWS * (COLUMNS // GROUP) * 4
    assert constants < len(data) < 1.01 * constants
    stems = [
        _saved(tmp_path / "small", small.exported, small.data),
        _saved(tmp_path / "large", from_exported(exported).exported, data),
    ]
    growth = _growth(*stems)
    assert growth < 2 * constants, f"{growth / constants:.2f} times the constants"


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="resident memory is read from /proc")
def test_large_outputs_are_kept_twice(lowered, tmp_path):
    """Logits of 1,024 rows: the delegate's and the method's, then the method's and one side's of the program."""
    small = lowered("lookup-dynamic")
    torch.manual_seed(0)
    head = programs.quantize_dynamic(nn.Linear(64, WORDS, bias=False).eval())
    with quiet(verbose=False):
        exported = programs.export(head, torch.randn(1, TOKENS, 64))
        optimize(exported, tmp_path / "logits.pte", baseline="none", verify=False, runtime="1.5.0")
    stems = [
        _saved(tmp_path / "small", small.exported, small.data),
        _saved(tmp_path / "large", exported, (tmp_path / "logits.pte").read_bytes()),
    ]
    growth = _growth(*stems) / (TOKENS * WORDS * 4)
    assert growth < 3, f"{growth:.2f} times the logits"


def _growth(*stems):
    """Bytes that verifying the second file takes in a process that has verified the first.

    What is freed goes back at once: how long an allocator keeps it depends on what else the machine does.
    """
    at_once = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    ran = subprocess.run(
        [sys.executable, "-c", _GROWTH, *stems],
        cwd=ROOT,
        env=at_once,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return int(ran.stdout)
