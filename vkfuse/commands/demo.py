"""`vkfuse demo`: a realistic program, and what vkfuse makes of it."""

import dataclasses
from pathlib import Path

from vkfuse.demo import write_demo
from vkfuse.options import Progress
from vkfuse.output import write
from vkfuse.pipeline import optimize
from vkfuse.report.model import InputFile, Report


def make_demo(program: Path, model: Path, written: Path, optimized: Path, *, progress: Progress) -> Report:
    """Write the program to `written` and the file to `optimized`, which the caller publishes as `program` and `model`."""
    progress(f"writing {program}")
    write(written, write_demo, program)
    report = optimize(written, model, progress=progress, into=optimized).report
    named = InputFile(path=str(program), bytes=written.stat().st_size)
    methods = tuple(dataclasses.replace(method, input=named) for method in report.methods)
    return dataclasses.replace(report, input=named, methods=methods)
