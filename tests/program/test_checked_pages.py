"""What is looked through of an archive does not stay in memory."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

SIZE = 200 << 20
LOOK = """
import sys
from vkfuse.mapping import map_file
from vkfuse.program.archive import Archive

def resident():
    lines = open("/proc/self/status").read().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(("RssAnon", "RssFile")))

archive = Archive(map_file(sys.argv[1], writable=True), "model.pt2")
before = resident()
data = archive.read("weights")
print(resident() - before, bytes(data[-1:]))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="resident pages are Linux's")
def test_checked_bytes_are_given_back(tmp_path):
    """A member of 200 MiB is checked within 16 MiB, and is what it was."""
    path = tmp_path / "model.pt2"
    with zipfile.ZipFile(path, "w") as archive, archive.open("model/weights", "w") as member:
        for _ in range(SIZE >> 20):
            member.write(b"\x07" * (1 << 20))
    run = subprocess.run([sys.executable, "-c", LOOK, path], check=True, capture_output=True, text=True)
    grown, last = run.stdout.split(maxsplit=1)
    assert int(grown) < 16 << 10
    assert last.strip() == repr(b"\x07")
