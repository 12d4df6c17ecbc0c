"""Build wheel and sdist, and run `vkfuse report` from the wheel, without torch: `python tools/package.py`.

The wheel is made from the sdist, as pip makes it. A fresh environment for each Python, 3.11 and 3.12, that is on the path.
"""

import json
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PYTHONS = ("3.11", "3.12")
# A program without a method: root offset, identifier, and a table whose vtable says that it has no fields.
EMPTY = struct.pack("<I4sHHi", 12, b"ET12", 4, 4, 4)
SUFFIXES = ("json", "md", "html", "csv", "tsv", "txt")


def main() -> int:
    """Build, then try each Python."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        wheel = build(folder)
        tried = [version for version in PYTHONS if try_report(folder, wheel, version)]
    print(f"{wheel.name}: vkfuse report runs without torch on Python {', '.join(tried)}")
    return 0 if tried else 1


def build(folder: Path) -> Path:
    """The wheel, made from the sdist."""
    python = environment(folder / "build", Path(sys.executable), "build")
    run(python, "-m", "build", "--outdir", folder / "dist", ROOT)
    (wheel,) = (folder / "dist").glob("*.whl")
    return wheel


def try_report(folder: Path, wheel: Path, version: str) -> bool:
    """Whether a Python is there; every format of a report is written with it."""
    found = shutil.which(f"python{version}")
    works = (
        found
        and subprocess.run([found, "-c", "import venv"], check=False, capture_output=True).returncode == 0
    )
    if not found or not works:
        print(f"no Python {version} on the path")
        return False
    python = environment(folder / version, Path(found), "-r", ROOT / "requirements-report.txt")
    run(python, "-m", "pip", "install", "-qq", "--no-deps", wheel)
    place = folder / f"work-{version}"
    place.mkdir()
    (place / "model.pte").write_bytes(EMPTY)
    (place / "released.pte").write_bytes(EMPTY + bytes(8))
    reports = [f"--report=report.{suffix}" for suffix in SUFFIXES]
    run(python, "-m", "vkfuse", "report", "model.pte", "released.pte", "--max-growth=0", *reports, cwd=place)
    report = json.loads((place / "report.json").read_text())
    if report["diff"]["total"]["delta"] != -8 or not all(
        (place / f"report.{s}").stat().st_size for s in SUFFIXES
    ):
        raise SystemExit(f"wrong report on Python {version}")
    run(
        python,
        "-c",
        "import importlib.util as i, sys; sys.exit(any(map(i.find_spec, ('torch', 'executorch'))))",
    )
    return True


def environment(folder: Path, python: Path, *packages: object) -> Path:
    """The Python of a fresh environment with `packages`."""
    run(python, "-m", "venv", folder)
    made = folder / "bin" / "python"
    run(made, "-m", "pip", "install", "-qq", "--disable-pip-version-check", *packages)
    return made


def run(*command: object, cwd: Path | None = None) -> None:
    """Run a command that must succeed."""
    subprocess.run([*map(str, command)], check=True, cwd=cwd)


if __name__ == "__main__":
    sys.exit(main())
