"""Run a written file's own bytes, and the exported program, on the same inputs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from vkfuse.report.model import Report
from vkfuse.verify.session import run_file


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What `optimize` made of a program."""

    exported: ExportedProgram
    path: Path
    report: Report


def worst_error(exported: ExportedProgram, path: Path, inputs: Sequence[Sequence[Any]] = ()) -> float:
    """The largest error of any output, in shares of its largest value, on the example and on `inputs`.

    Shapes and dtypes must agree. Zero outputs count their absolute error.
    """
    session, eager = run_file(path), exported.module()
    errors = [0.0]
    for values in (exported.example_inputs[0], *inputs):
        with torch.no_grad():
            expected = pytree.tree_leaves(eager(*values))
        got = session(tuple(pytree.tree_leaves(values)))
        for ours, theirs in zip(got, expected, strict=True):
            assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
            errors.append(_share(ours, theirs))
    return max(errors)


def _share(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    if not theirs.numel():
        return 0.0
    error = float((ours.double() - theirs.double()).abs().nan_to_num(nan=torch.inf).max())
    return error / (float(theirs.double().abs().max()) or 1.0)
