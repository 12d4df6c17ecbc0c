"""The optional `vulkan` package, imported when it is first asked for, and what lives as long as a scope."""

from contextlib import ExitStack
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any, Final

from vkfuse.errors import MissingPackageError, VkfuseError


class NoVulkanError(VkfuseError):
    """There is no Vulkan loader, driver or device to run on."""


class VulkanCallError(VkfuseError):
    """A Vulkan call failed."""


class _Vulkan:
    """The module's names. MissingPackageError or NoVulkanError where it cannot be used."""

    def __getattr__(self, name: str) -> Any:
        return getattr(_module(), name)


vk: Final[Any] = _Vulkan()


@cache
def _module() -> ModuleType:
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


def made(scope: ExitStack, device: Any, kind: str, info: Any) -> Any:
    """Create a device's object of a kind (`Sampler`), which is destroyed with the scope."""
    handle = getattr(vk, f"vkCreate{kind}")(device, info, None)
    scope.callback(getattr(vk, f"vkDestroy{kind}"), device, handle, None)
    return handle
