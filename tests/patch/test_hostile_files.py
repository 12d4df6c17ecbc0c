"""Damaged and hand-made files: an error for users, or a file, and never anything else."""

import random
from dataclasses import replace
from pathlib import Path

import pytest

from vkfuse.errors import VkfuseError
from vkfuse.options import Options
from vkfuse.patch.stages import optimize_file
from vkfuse.pte import model, parse_pte, read_pte

FLIPS = 150
OPTIONS = Options(baseline="none", partial=True, verify=False)


def rewritten(data, output):
    """Rewrite a file in memory; what users see of errors is let pass, anything else is a fault of ours."""
    try:
        optimize_file(parse_pte(data), output, OPTIONS)
    except VkfuseError:
        return False
    return read_pte(output) is not None


@pytest.mark.parametrize("name", ["joined", "padded", "methods", "packed"])
def test_flipped_bytes(files, tmp_path, name):
    """Bytes of the program and the graphs are flipped, a few at a time: some files are refused, some are rewritten."""
    whole = (files / f"{name}.pte").read_bytes()
    draw = random.Random(name)  # noqa: S311 - a test's own
    outcomes = []
    for _ in range(FLIPS):
        data = bytearray(whole)
        for _ in range(draw.choice([1, 2, 8])):
            data[draw.randrange(min(len(data), 4000))] ^= 1 << draw.randrange(8)
        outcomes.append(rewritten(bytes(data), tmp_path / "m.pte"))
    assert len({*outcomes}) == 2


def test_truncated_anywhere(files, tmp_path):
    """A file that ends early is refused."""
    whole = (files / "joined.pte").read_bytes()
    for length in range(0, len(whole), 257):
        assert not rewritten(whole[:length], tmp_path / "m.pte")


def test_lookups_that_nobody_writes_stay(files, tmp_path):
    """Calls with too few arguments, indices that are no tensor, sizes without a bound: the table stays, with the reason."""
    file = read_pte(files / "ranked.pte")
    (method,) = file.methods
    at, call = next((at, e) for at, e in enumerate(method.instructions) if isinstance(e, model.KernelCall))
    short = replace(call, args=(call.args[0], call.args[-1]))
    swapped = replace(call, args=(call.args[0], call.args[2], *call.args[2:]))
    for changed in (short, swapped):
        entries = (*method.instructions[:at], changed, *method.instructions[at + 1 :])
        odd = replace(file, methods=(replace(method, instructions=entries),))
        report = optimize_file(odd, Path(tmp_path / "m.pte"), OPTIONS).report
        (row,) = report.tables
        assert (row.rung, row.reason.partition(":")[0]) == ("untouched", "call-not-understood")
