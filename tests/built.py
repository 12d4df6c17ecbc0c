"""Real files, lowered once for each version of the build script and the packages, kept in pytest's cache."""

import hashlib
import os
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

SCRIPT = Path(__file__).parent / "pte/build_files.py"
BACKENDS = Path(__file__).parent / "pte/build_backends.py"


def build(cache: Path, script: Path = SCRIPT) -> Path:
    """Return the directory of files that a script built inside `cache`, building it where it is missing."""
    key = hashlib.sha256(script.read_bytes())
    key.update("".join(version(name) for name in ("torch", "torchao", "executorch")).encode())
    directory = cache / key.hexdigest()[:16]
    if directory.is_dir():
        return directory
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        built = Path(scratch) / "built"
        built.mkdir()
        environment = {**os.environ, "OMP_NUM_THREADS": "2"}
        ran = subprocess.run(
            [sys.executable, str(script), str(built)],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr[-4000:]
        try:
            built.rename(directory)
        except OSError:  # another process has built the same
            if not directory.is_dir():
                raise
    return directory
