"""`vkfuse report NEW.pte [BASE.pte]`: what is in a file, and what changed since another."""

from pathlib import Path

from vkfuse.errors import InputError
from vkfuse.pte.reader import read_pte
from vkfuse.report.build import baseline_of, describe_output, measure
from vkfuse.report.diff import diff_of
from vkfuse.report.model import Report
from vkfuse.report.render import Format, render, rendered
from vkfuse.runtime.versions import DEFAULT, find_runtime

__all__ = ["Format", "render", "rendered", "report_files"]


def report_files(new: Path, base: Path | None = None, runtime: str = DEFAULT) -> Report:
    """Measure `new`, against `base` where it is given; `-` is stdin. InputError, FormatError."""
    if base is not None and str(new) == str(base) == "-":
        raise InputError("both files are stdin", hint="give one of them as a path")
    target = find_runtime(runtime)
    after = measure(read_pte(new), runtime)
    before = None if base is None else measure(read_pte(base), runtime)
    return Report(
        runtime=target.version,
        output=describe_output(after.pte),
        baseline=None if before is None else baseline_of("file", before),
        delegation=after.delegation,
        methods=after.methods,
        loadable=after.loadable,
        tables=after.tables,
        lookups=after.lookups,
        shaders=after.shaders,
        ledger=after.ledger,
        diff=None if before is None else diff_of(after, before),
        notes=(target.note,) if target.note else (),
    )
