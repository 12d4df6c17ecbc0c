"""The optional `vulkan` package, imported when it is first asked for, and its instance, with Khronos' validation layer."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
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


VALIDATION_LAYER = "VK_LAYER_KHRONOS_validation"
DEBUG_EXTENSION = "VK_EXT_debug_utils"
API_VERSION = (1 << 22) | (1 << 12)  # 1.1, the runtime's


@dataclass(slots=True, kw_only=True)
class Instance:
    """A created instance; `messages` collects what the validation layer says."""

    handle: Any
    validated: bool
    messages: list[str] = field(default_factory=list)


def validation_available() -> bool:
    """Whether the Khronos validation layer can be loaded."""
    layers = vk.vkEnumerateInstanceLayerProperties()
    return any(layer.layerName == VALIDATION_LAYER for layer in layers)


@contextmanager
def open_instance(*, validate: bool = False) -> Iterator[Instance]:
    """Create an instance, with the validation layer if asked for and installed; destroy it at the end."""
    validated = validate and validation_available()
    try:
        handle = vk.vkCreateInstance(_create_info(validated=validated), None)
    except (vk.VkErrorIncompatibleDriver, vk.VkErrorInitializationFailed) as error:
        raise no_device() from error
    instance = Instance(handle=handle, validated=validated)
    messenger = _listen(instance) if validated else None
    try:
        yield instance
    finally:
        if messenger is not None:
            vk.vkGetInstanceProcAddr(handle, "vkDestroyDebugUtilsMessengerEXT")(handle, messenger, None)
        vk.vkDestroyInstance(handle, None)


def no_device() -> NoVulkanError:
    """The error for a machine without a Vulkan driver."""
    return NoVulkanError(
        "no Vulkan driver on this machine",
        hint="install one, or Mesa's software driver: apt install mesa-vulkan-drivers",
    )


def _create_info(*, validated: bool) -> Any:
    return vk.VkInstanceCreateInfo(
        pApplicationInfo=vk.VkApplicationInfo(pApplicationName="vkfuse", apiVersion=API_VERSION),
        ppEnabledLayerNames=[VALIDATION_LAYER] if validated else [],
        ppEnabledExtensionNames=[DEBUG_EXTENSION] if validated else [],
    )


def _listen(instance: Instance) -> Any:
    """Append each warning and error of the layer to `instance.messages`."""

    def receive(_severity: int, _kind: int, data: Any, _user: Any) -> int:
        instance.messages.append(vk.ffi.string(data.pMessage).decode(errors="replace"))
        return 0

    severe = (
        vk.VK_DEBUG_UTILS_MESSAGE_SEVERITY_WARNING_BIT_EXT | vk.VK_DEBUG_UTILS_MESSAGE_SEVERITY_ERROR_BIT_EXT
    )
    info = vk.VkDebugUtilsMessengerCreateInfoEXT(
        messageSeverity=severe,
        messageType=vk.VK_DEBUG_UTILS_MESSAGE_TYPE_VALIDATION_BIT_EXT,
        pfnUserCallback=receive,
    )
    create = vk.vkGetInstanceProcAddr(instance.handle, "vkCreateDebugUtilsMessengerEXT")
    return create(instance.handle, info, None)
