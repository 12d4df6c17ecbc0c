"""A Vulkan device for the tests that run shaders: Mesa's lavapipe will do."""

import os

import pytest

from vkfuse.errors import MissingPackageError
from vkfuse.glsl.vulkan.device import open_device
from vkfuse.glsl.vulkan.instance import NoVulkanError


@pytest.fixture(scope="session")
def device():
    """The default device, with the validation layer where it is installed."""
    try:
        with open_device(validate=True) as opened:
            yield opened
    except (NoVulkanError, MissingPackageError) as error:
        if "VKFUSE_REQUIRE_VULKAN" in os.environ:
            raise
        pytest.skip(str(error))
