"""The readers and reports stay light: no torch, no executorch, no numpy."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from vkfuse.pte import read_pte
from vkfuse.pte.model import NamedData
from vkfuse.pte.values import Extent
from vkfuse.pte.writer import write_pte

HEAVY = ("torch", "torchao", "executorch", "numpy")


@pytest.mark.parametrize(
    "modules", ["vkfuse.pte, vkfuse.lint, vkfuse.measure.ledger", "vkfuse.report.serial"]
)
def test_heavy_packages_are_not_imported(modules):
    """Importing in a fresh interpreter loads none of the packages that a slim image lacks."""
    code = f"import {modules}, sys; print([name for name in {HEAVY!r} if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


def test_help_loads_nothing_that_it_does_not_show():
    """`--help` of the tool and of its largest command: no renderer, no reader of files, nothing heavy."""
    code = (
        "import sys; from vkfuse.cli import app\n"
        "for arguments in (['--help'], ['optimize', '--help']):\n"
        "    try: app(arguments)\n"
        "    except SystemExit: pass\n"
        f"names = {(*HEAVY, 'rich', 'vkfuse.report.model', 'vkfuse.pte.reader', 'vkfuse.patch')!r}\n"
        "print([name for name in names if name in sys.modules], file=sys.stderr)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stderr == "[]\n"
    assert "--max-size" in ran.stdout


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc, as Linux has it")
def test_a_large_file_stays_out_of_memory(files, tmp_path):
    """A report of a file of 256 MiB takes as much memory as one of a small file, with its hash and without."""
    pte = read_pte(files / "tied.pte")
    blob = memoryview(bytes(1 << 20) * 256)
    entry = NamedData(key="blob", segment_index=0, data=blob, data_at=Extent(0, len(blob)))
    with (tmp_path / "large.pte").open("wb") as stream:
        write_pte(replace(pte, named=(*pte.named, entry)), stream)
    code = (
        "import re, sys; from pathlib import Path; from vkfuse.cli import app\n"
        "try: app(['report', '--no-config', '-q', *sys.argv[1:]])\n"
        "except SystemExit as left: assert not left.code\n"
        "print(re.search('VmHWM:\\\\s+(\\\\d+)', Path('/proc/self/status').read_text())[1])"
    )
    for options in ([], ["--no-hash"]):
        command = [sys.executable, "-c", code, str(tmp_path / "large.pte"), *options]
        ran = subprocess.run(command, capture_output=True, text=True, check=True)
        assert int(ran.stdout) < 80 << 10  # KiB
