"""`vkfuse demo`: a realistic program, and what vkfuse makes of it."""

import dataclasses
from pathlib import Path

from vkfuse.demo import write_demo
from vkfuse.options import Progress
from vkfuse.output import Into, write
from vkfuse.pipeline import optimize
from vkfuse.report.model import InputFile, Report


def make_demo(program: Path, model: Path, written: Path, optimized: Path, *, progress: Progress) -> Report:
    """Write the program to `written` and the file to `optimized`, which the caller publishes as `program` and `model`."""
    progress(f"writing {program}")
    write(written, write_demo, program)
    report = optimize(written, model, progress=progress, into=Into(model=optimized)).report
    methods = tuple(dataclasses.replace(m, input=_named(m.input, program)) for m in report.methods)
    return dataclasses.replace(report, input=_named(report.input, program), methods=methods)


def _named(file: InputFile | None, path: Path) -> InputFile | None:
    return file and dataclasses.replace(file, path=str(path))
