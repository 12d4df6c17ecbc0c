"""`vkfuse report NEW.pte [BASE.pte]`: what is in a file, and what changed since another."""

from pathlib import Path
from typing import Final

from vkfuse.errors import InputError
from vkfuse.gates import Gates
from vkfuse.pte.reader import read_pte
from vkfuse.report.build import measure
from vkfuse.report.checks import checked
from vkfuse.report.format import Format
from vkfuse.report.model import Report
from vkfuse.report.render import render, rendered
from vkfuse.report.whole import report_of
from vkfuse.runtime.versions import DEFAULT

__all__ = ["Format", "render", "rendered", "report_files"]


_NOTHING_RUNS: Final = "a report runs nothing and has no program: ask vkfuse optimize, or vkfuse verify"


def report_files(
    new: Path, base: Path | None = None, runtime: str = DEFAULT, gates: Gates | None = None
) -> Report:
    """Measure `new`, against `base` where it is given, with a check for each of `gates`; `-` is stdin.

    Raises InputError, FormatError, and VkfuseError for gates that a report cannot answer.
    """
    asked = gates or Gates()
    alone = {"before": "give BASE.pte to compare with"} if base is None else {}
    asked.check_possible({"verified": _NOTHING_RUNS, "exact": _NOTHING_RUNS, **alone})
    if base is not None and str(new) == str(base) == "-":
        raise InputError("both files are stdin", hint="give one of them as a path")
    after = measure(read_pte(new), runtime)
    before = None if base is None else measure(read_pte(base), runtime)
    return checked(report_of(after, before, runtime), asked, after, before)
