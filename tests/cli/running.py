"""What the tests of the command line run and look at."""

import os
import struct
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
# A .pte without a method: root offset, identifier, and a table whose vtable says that it has no fields.
SMALL_PTE = struct.pack("<I4sHHi", 12, b"ET12", 4, 4, 4)
OLD = b"what was there before"


@dataclass(frozen=True, slots=True)
class Ran:
    """What a command left behind."""

    code: int
    out: str
    err: str


def environment():
    """The environment of a subprocess: this checkout first, nothing of the terminal."""
    kept = {k: v for k, v in os.environ.items() if k not in {"COLUMNS", "FORCE_COLOR", "NO_COLOR"}}
    return {**kept, "PYTHONPATH": str(ROOT)}
