"""The lookups' shader on a Vulkan driver; skipped where the machine has none."""

import os

import pytest

from vkfuse.errors import VkfuseError
from vkfuse.glsl.vulkan.device import open_device
from vkfuse.pte import parse_pte
from vkfuse.verify.verify import VerifyOptions, verify_file


def _driver() -> bool:
    """Whether there is a driver; where the environment demands one its absence fails the tests instead."""
    try:
        with open_device():
            return True
    except VkfuseError:
        return "VKFUSE_REQUIRE_VULKAN" in os.environ


needs_driver = pytest.mark.skipif(not _driver(), reason="no Vulkan driver")


@needs_driver
@pytest.mark.parametrize(("name", "lookups"), [("lookup", 1), ("lookup-dynamic", 1), ("tied-apart", 1)])
def test_lookups_agree_bit_for_bit(name, lookups, lowered):
    """The file's own weights and indices through the shader give the executor's bits."""
    file = lowered(name)
    verdict = verify_file(parse_pte(file.data), file.exported, VerifyOptions(seeds=0, device=True))
    assert verdict.ok
    assert [(check.differing, check.values > 0) for check in verdict.device] == [(0, True)] * lookups
    assert all(
        check.shader.startswith("embedding_q4gsw_float_scales") and check.driver for check in verdict.device
    )


@needs_driver
def test_a_file_without_lookups_says_so(lowered):
    """Asked for the device with nothing to run on it, the verdict says that this was skipped."""
    file = lowered("linear-rows")
    verdict = verify_file(parse_pte(file.data), file.exported, VerifyOptions(seeds=0, device=True))
    assert (verdict.ok, verdict.device) == (True, ())
    assert any("device" in reason for reason in verdict.skipped)
