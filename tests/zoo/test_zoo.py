"""The zoo: what transformers offers and people deploy is written, loadable, right, and in as few pieces as promised."""

import pytest
import zoo
from stored import exported

from vkfuse.options import BaselineChoice, Options
from vkfuse.pipeline import optimize

# Of 32-bit arithmetic in another order; the runtime's tanh form of gelu, of 5e-4 a layer; 8-bit activations that round
# to a neighbour.
BOUNDS = {"embedding": 2e-3, "int4": 2e-3, "8da4w": 2e-2}
DEEP = 5  # times as much after the six layers of a published model
REPRESENTATIVE = 3  # of so many settings one is in `make test`, the rest in `make test-zoo`


def _parameter(at, setting):
    marks = () if at % REPRESENTATIVE == at // REPRESENTATIVE % REPRESENTATIVE else pytest.mark.zoo
    return pytest.param(setting, id=setting.name, marks=marks)


@pytest.mark.parametrize("setting", [_parameter(*each) for each in enumerate(zoo.settings())])
def test_zoo(setting, request, tmp_path):
    """Every table that an input reaches is packed, the file loads and computes the program, from its own bytes."""
    program = exported(setting, request.config.cache.mkdir("zoo"))
    report = optimize(program, tmp_path / "model.pte", Options(baseline=BaselineChoice.NONE)).report
    assert report.loadable.ok
    assert report.verify.ok
    depth = DEEP if setting.architecture.published else 1
    assert report.verify.max_rel_error < BOUNDS[setting.weights] * depth
    refused = {table.reason.partition(":")[0] for table in report.tables if table.rung != "q4"}
    assert refused <= {"constant-indices"}  # positions of a static length: no input chooses their rows
    assert report.tables
    assert report.delegation.subgraphs == 1
    assert all(operator.reason for operator in report.delegation.cpu.values())
    if setting.architecture.family in {"causal", "decoder"} and setting.length == "static":
        assert not report.delegation.cpu
