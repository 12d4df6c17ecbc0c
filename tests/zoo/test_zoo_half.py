"""The zoo in half precision: written, loadable, its tables rounded as half rounds them, and right or refused as listed."""

import pytest
import zoo
from stored import exported

from vkfuse.errors import CheckFailedError
from vkfuse.options import BaselineChoice, Options, VulkanOptions
from vkfuse.pipeline import optimize

HALF = Options(baseline=BaselineChoice.NONE, vulkan=VulkanOptions(fp16=True))
LIMIT = 1e-2  # what verify lets half precision be off, in shares of an output's largest value
EIGHT_BITS = 5e-2  # and where 8-bit activations fall to another step
COARSE = 1e-3  # of tables whose largest value is about 4: half a step of their scales, times 8
REPRESENTATIVE = 12  # of so many settings one is in `make test`, each of another architecture


def _parameter(at, setting):
    return pytest.param(setting, id=setting.name, marks=() if at % REPRESENTATIVE == 1 else pytest.mark.zoo)


@pytest.mark.parametrize("setting", [_parameter(*each) for each in enumerate(zoo.settings())])
def test_zoo_in_half_precision(setting, request, tmp_path):
    """No table is said to be exact that is stored in halves; outputs are near, but for models that half cannot hold."""
    program = exported(setting, request.config.cache.mkdir("zoo"))
    if setting.name in zoo.BEYOND_HALF:
        with pytest.raises(CheckFailedError, match="output 0 differs"):
            optimize(program, tmp_path / "model.pte", HALF)
        return
    report = optimize(program, tmp_path / "model.pte", HALF).report
    assert report.loadable.ok
    assert report.verify.ok
    assert report.verify.max_rel_error < (EIGHT_BITS if setting.weights == "8da4w" else LIMIT)
    assert report.tables
    packed = [table.proof for table in report.tables if table.rung == "q4"]
    assert {proof.kind for proof in packed} == {"rounded"}
    assert max(proof.max_abs_error for proof in packed) < COARSE
