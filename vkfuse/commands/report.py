"""`vkfuse report NEW.pte [BASE.pte]`: what is in a file, and what changed since another."""

from pathlib import Path

from vkfuse.errors import InputError
from vkfuse.pte.reader import read_pte
from vkfuse.report.build import measure
from vkfuse.report.format import Format
from vkfuse.report.model import Report
from vkfuse.report.render import render, rendered
from vkfuse.report.whole import report_of
from vkfuse.runtime.versions import DEFAULT

__all__ = ["Format", "render", "rendered", "report_files"]


def report_files(new: Path, base: Path | None = None, runtime: str = DEFAULT) -> Report:
    """Measure `new`, against `base` where it is given; `-` is stdin. InputError, FormatError."""
    if base is not None and str(new) == str(base) == "-":
        raise InputError("both files are stdin", hint="give one of them as a path")
    after = measure(read_pte(new), runtime)
    before = None if base is None else measure(read_pte(base), runtime)
    return report_of(after, before, runtime)
