"""One way to optimize for all tests: a seeded program in memory, no baseline."""

import pytest
import torch
from outcome import Outcome

from vkfuse.options import BaselineChoice, Options
from vkfuse.pipeline import optimize
from vkfuse.quiet import quiet


@pytest.fixture(scope="module")
def outcome_of(tmp_path_factory):
    """A function: what `optimize` makes of the program that a builder exports; done once for each builder."""
    done = {}

    def run(build):
        if build not in done:
            torch.manual_seed(0)
            with quiet():
                exported = build()
            path = tmp_path_factory.mktemp("optimized") / "model.pte"
            result = optimize(exported, path, Options(baseline=BaselineChoice.NONE))
            done[build] = Outcome(exported=exported, path=path, report=result.report)
        return done[build]

    return run
