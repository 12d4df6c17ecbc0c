"""Reports of real files in every format, as reviewed; UPDATE_GOLDEN=1 writes them anew."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from vkfuse import __version__

GOLDEN = Path(__file__).parent / "golden"
ROOT = Path(__file__).parents[2]
RUNS = {  # what is asked, of files that tests/pte/build_files.py lowers
    "one.txt": ("unfused.pte", "--all-runtimes"),
    "one.json": ("unfused.pte",),
    "diff.txt": ("tied.pte", "folded.pte"),
    "diff.json": ("tied.pte", "folded.pte"),
    "diff.md": ("tied.pte", "folded.pte"),
    "diff.csv": ("tied.pte", "folded.pte"),
    "diff.tsv": ("tied.pte", "folded.pte"),
    "diff.html": ("tied.pte", "folded.pte"),
    "each.txt": ("fused.pte", "unfused.pte", "sorted.pte", "--max-size=7KB"),
    "each.md": ("fused.pte", "unfused.pte", "sorted.pte", "--max-size=7KB"),
}
FORMATS = {".txt": "text", ".md": "markdown"}


def _page(text):
    """What was printed without the version, and without a page's style, script and hashes, which have their own tests."""
    text = text.replace(__version__, "VERSION")
    if text.startswith("{"):  # keys may be added: what says nothing is left out
        said = {key: value for key, value in json.loads(text).items() if value not in (None, [], {})}
        return json.dumps(said, indent=2) + "\n"
    text = re.sub(r"<style>.*?</style>|(<script>).*?</script>", "", text, flags=re.DOTALL)
    return re.sub(r"sha256-[^']+", "sha256-", text)


@pytest.mark.parametrize("name", RUNS)
def test_report_is_as_reviewed(files, name):
    """The command's whole output, on 80 columns where it has any."""
    kind = FORMATS.get(Path(name).suffix, name.rpartition(".")[2])
    command = [sys.executable, "-m", "vkfuse", "report", "--no-config", "--runtime=1.5.1", f"--format={kind}"]
    environment = {**os.environ, "COLUMNS": "80", "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(
        [*command, *RUNS[name]], cwd=files, env=environment, capture_output=True, text=True, check=False
    )
    assert ran.returncode == ("each" in name), ran.stderr
    text = _page(ran.stdout)
    path = GOLDEN / f"run-{name}"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text()
    if kind == "text":
        assert max(map(len, text.splitlines())) <= 80
