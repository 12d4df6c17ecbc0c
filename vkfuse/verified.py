"""Run the methods of a written file against their programs, and say what came out."""

import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch

from vkfuse.errors import CheckFailedError
from vkfuse.options import Options
from vkfuse.program.load import Program
from vkfuse.proofs import Proved
from vkfuse.pte import read_pte
from vkfuse.report.model import Verify
from vkfuse.verify.compare import Tolerance
from vkfuse.verify.verdict import Verification
from vkfuse.verify.verify import VerifyOptions, verify_file


def verify_methods(
    written: Path, programs: Mapping[str, Program], proved: Mapping[str, Proved], options: Options
) -> dict[str, Verification]:
    """Run the written bytes of each method on its program's example inputs, where it has any.

    What they hold of the tables is `proved` before.

    Raises CheckFailedError where they differ.
    """
    pte = read_pte(written)
    tolerance = Tolerance(arithmetic=torch.float16 if options.vulkan.fp16 else None)
    found = {}
    for name, program in programs.items():
        if program.example_inputs is None:
            continue
        chosen = VerifyOptions(
            method=name,
            runtime=options.runtime,
            seeds=1,
            tolerance=tolerance,
            tables=proved[name].checks,
        )
        found[name] = verify_file(pte, program.exported, chosen)
        _check(name, found[name])
    return found


def _check(method: str, verification: Verification) -> None:
    if verification.ok or verification.status == "cannot-verify":
        return
    raise CheckFailedError(
        f"{method} of the lowered file does not compute what its program does: {verification.message}",
        hint=verification.hint or "--no-verify writes it all the same",
    )


def verify_row(program: Program, verification: Verification | None, options: Options) -> Verify:
    """What the report says of one method."""
    if verification is not None:
        return verification.summary()
    why = (
        "the program stores no example inputs"
        if options.verify and program.example_inputs is None
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


def deviations(verifications: Iterable[Verification]) -> Iterator[str]:
    """What the runtime computes differently from torch by its own design, with the largest measured deviation."""
    runs = [run for verification in verifications for run in verification.runs if run.reason]
    for reason in dict.fromkeys(run.reason for run in runs):
        worst = max(run.eager_rel or 0.0 for run in runs if run.reason == reason)
        yield f"up to {worst:.2g} of the largest value off torch by the runtime's design: {reason}"
