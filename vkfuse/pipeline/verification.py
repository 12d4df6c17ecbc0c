"""Run the methods of a written file against their programs, and say what came out."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace

import torch
from torch.export import ExportedProgram

from vkfuse.errors import CheckFailedError
from vkfuse.options import Options, Progress
from vkfuse.pipeline.method import Method, Methods
from vkfuse.program.load import Program
from vkfuse.program.parts import constants_of
from vkfuse.program.widened import halves
from vkfuse.pte.model import PteFile
from vkfuse.report.model import Verify
from vkfuse.verify.reference import Reference, flat_inputs
from vkfuse.verify.verdict import Verification
from vkfuse.verify.verify import VerifyOptions, verify_file


def verified(methods: Methods, pte: PteFile, options: Options, progress: Progress) -> Methods:
    """Each method with its verification, where it was asked for and possible.

    Raises CheckFailedError where the written bytes compute something else than the program.
    """
    if not options.verify or all(m.program.example_inputs is None for m in methods):
        return methods
    progress("verifying")
    return tuple(replace(m, verification=_verification(m, pte, options)) for m in methods)


def _verification(method: Method, pte: PteFile, options: Options) -> Verification | None:
    """Run the written bytes of a method on its program's example inputs, where it has any."""
    if method.program.example_inputs is None:
        return None
    chosen = VerifyOptions(
        method=method.name,
        runtime=options.runtime,
        seeds=1,
        tables=None if method.proved is None else method.proved.checks,
    )
    found = verify_file(pte, method.program.exported, chosen)
    if found.ok or found.status == "cannot-verify":
        return found
    raise CheckFailedError(
        f"{method.name} of the lowered file does not compute what its program does: {found.message}",
        hint=found.hint or "--no-verify writes it all the same",
    )


def verify_row(method: Method, options: Options) -> Verify:
    """What the report says of one method."""
    if method.verification is not None:
        return method.verification.summary()
    why = (
        "the program stores no example inputs"
        if options.verify and method.program.example_inputs is None
        else "not asked for"
    )
    return Verify(ran=False, ok=None, max_abs_error=None, max_rel_error=None, skipped=(why,))


def together(rows: Iterable[Verify]) -> Verify:
    """What the report says of the file: that it was verified only where each method was."""
    of = tuple(rows)
    return Verify(
        ran=all(row.ran for row in of),
        ok=_all(row.ok for row in of),
        max_abs_error=_largest(row.max_abs_error for row in of),
        max_rel_error=_largest(row.max_rel_error for row in of),
        skipped=tuple(dict.fromkeys(skipped for row in of for skipped in row.skipped)),
    )


def _all(verdicts: Iterable[bool | None]) -> bool | None:
    """False where one is False, None where one is unknown."""
    found = {*verdicts}
    return False if False in found else None if None in found else True


def _largest(errors: Iterable[float | None]) -> float | None:
    """The largest error, which one that is no number is."""
    known = [error for error in errors if error is not None]
    return max(known, key=lambda error: (math.isnan(error), error), default=None)


def deviations(methods: Methods) -> Iterator[str]:
    """What the runtime computes differently from torch by its own design, with the largest measured deviation."""
    runs = [run for m in methods if m.verification is not None for run in m.verification.runs if run.reason]
    for reason in dict.fromkeys(run.reason for run in runs):
        worst = max(run.eager_rel or 0.0 for run in runs if run.reason == reason)
        yield f"up to {worst:.2g} of the largest value off torch by the runtime's design: {reason}"


def precision(methods: Methods) -> Iterator[str]:
    """How far a program computed in float32 is from itself as it was given, on its example inputs; what that would help."""
    for m in methods:
        if m.program.narrow is None:
            if torch.bfloat16 in halves(m.program.exported):
                offer = "--compute float32 takes it off the CPU" + _cost_of_float32(m)
                yield f"{m.name} computes in bfloat16, which Vulkan has not; {offer}"
            continue
        kinds = " and ".join(sorted(str(kind).removeprefix("torch.") for kind in halves(m.program.narrow)))
        yield f"{m.name} computes in float32 what was given in {kinds}: {_measured(m.program, m.program.narrow)}"


def _cost_of_float32(method: Method) -> str:
    """What --compute float32 would make larger, of what is lowered; empty where that is nothing."""
    stored = constants_of(method.prepared.exported).values()
    narrow = sum(value.nbytes for value in stored if value.dtype is torch.bfloat16)
    return f", and stores {narrow:,} bytes of bfloat16 numbers as twice as many" if narrow else ""


def _measured(program: Program, narrow: ExportedProgram) -> str:
    if program.example_inputs is None:
        return "the difference was not measured, since the program stores no example inputs"
    inputs = flat_inputs(narrow, *program.example_inputs)
    pairs = zip(Reference(program.exported)(inputs), Reference(narrow)(inputs), strict=True)
    worst = max((_distance(*pair) for pair in pairs if isinstance(pair[0], torch.Tensor)), default=0.0)
    return f"up to {worst:.2g} of the largest value apart on the example inputs"


def _distance(wide: torch.Tensor, narrow: torch.Tensor) -> float:
    """The largest difference, by the largest value."""
    if not narrow.numel():
        return 0.0
    difference = (wide.double() - narrow.double()).abs().max()
    return float(difference / narrow.double().abs().max().clamp(min=torch.finfo(torch.float32).tiny))
