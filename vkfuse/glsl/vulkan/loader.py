"""The optional `vulkan` package: import it, or say what is missing."""

from functools import cache
from importlib import import_module
from types import ModuleType

from vkfuse.errors import MissingPackageError, VkfuseError


class NoVulkanError(VkfuseError):
    """There is no Vulkan loader, driver or device to run on."""


class VulkanCallError(VkfuseError):
    """A Vulkan call failed."""


@cache
def vulkan() -> ModuleType:
    """The `vulkan` module. MissingPackageError or NoVulkanError when it cannot be used."""
    try:
        return import_module("vulkan")
    except ImportError as error:
        raise MissingPackageError(
            "running shaders needs the package 'vulkan'", hint="pip install 'vkfuse[vulkan]'"
        ) from error
    except OSError as error:
        raise NoVulkanError(
            "no Vulkan loader (libvulkan.so.1) on this machine",
            hint="install a driver, or Mesa's software driver: apt install mesa-vulkan-drivers",
        ) from error
