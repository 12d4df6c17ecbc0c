"""A Vulkan device with one compute queue: choose, open, record, submit, wait."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

from vkfuse.errors import VkfuseError
from vkfuse.glsl.vulkan.instance import (
    Instance,
    NoVulkanError,
    VulkanCallError,
    made,
    no_device,
    open_instance,
    vk,
)

Recorder: TypeAlias = Callable[[Any], None]

_DEVICE_KINDS = ("other", "integrated", "discrete", "virtual", "cpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceInfo:
    """What a report says of a device, and the limits that the runner needs."""

    index: int
    name: str
    kind: str
    api_version: str
    driver_version: int
    max_image_2d: int
    max_image_3d: int
    max_work_group_invocations: int
    max_storage_buffer_bytes: int
    timestamp_period_ns: float
    storage_16bit: bool

    def as_dict(self) -> dict[str, object]:
        """Plain data for JSON."""
        return asdict(self)


@dataclass(slots=True, kw_only=True)
class Device:
    """An open device. `handle`, `queue` and `pool` are Vulkan handles."""

    info: DeviceInfo
    instance: Instance
    physical: Any
    handle: Any
    queue: Any
    pool: Any

    @contextmanager
    def recorded(self, record: Recorder) -> Iterator[Any]:
        """A command buffer with what `record(commands)` records, to be run as often as wanted."""
        allocate = vk.VkCommandBufferAllocateInfo(
            commandPool=self.pool, level=vk.VK_COMMAND_BUFFER_LEVEL_PRIMARY, commandBufferCount=1
        )
        buffers = vk.vkAllocateCommandBuffers(self.handle, allocate)
        try:
            vk.vkBeginCommandBuffer(buffers[0], vk.VkCommandBufferBeginInfo())
            record(buffers[0])
            vk.vkEndCommandBuffer(buffers[0])
            yield buffers[0]
        finally:
            vk.vkFreeCommandBuffers(self.handle, self.pool, 1, buffers)

    def run(self, commands: Any) -> None:
        """Run a command buffer and wait for its end."""
        submit = vk.VkSubmitInfo(commandBufferCount=1, pCommandBuffers=[commands])
        try:
            vk.vkQueueSubmit(self.queue, 1, [submit], vk.VK_NULL_HANDLE)
            vk.vkQueueWaitIdle(self.queue)
        except vk.VkError as error:
            raise VulkanCallError(
                f"the device failed while running commands: {type(error).__name__}"
            ) from error

    def submit(self, record: Recorder) -> None:
        """Record commands with `record(commands)`, run them once and wait for their end."""
        with self.recorded(record) as commands:
            self.run(commands)


@contextmanager
def open_device(index: int | None = None, *, validate: bool = False) -> Iterator[Device]:
    """Open device `index`, or the first GPU, or else the first device; close it at the end."""
    with open_instance(validate=validate) as instance, ExitStack() as scope:
        physical_devices = _physical_devices(instance)
        infos = [_info(at, physical) for at, physical in enumerate(physical_devices)]
        info = _choose(infos, index)
        physical = physical_devices[info.index]
        family = _compute_family(physical)
        handle = _create(physical, family, info)
        scope.callback(vk.vkDestroyDevice, handle, None)
        pool = made(scope, handle, "CommandPool", vk.VkCommandPoolCreateInfo(queueFamilyIndex=family))
        queue = vk.vkGetDeviceQueue(handle, family, 0)
        yield Device(info=info, instance=instance, physical=physical, handle=handle, queue=queue, pool=pool)


def _physical_devices(instance: Instance) -> list[Any]:
    try:
        devices = list(vk.vkEnumeratePhysicalDevices(instance.handle))
    except vk.VkError as error:
        raise no_device() from error
    if not devices:
        raise no_device()
    return devices


def _choose(infos: list[DeviceInfo], index: int | None) -> DeviceInfo:
    if index is None:
        return next((info for info in infos if info.kind != "cpu"), infos[0])
    if not 0 <= index < len(infos):
        names = ", ".join(f"{info.index}: {info.name}" for info in infos)
        raise NoVulkanError(f"there is no Vulkan device {index}", hint=f"devices: {names}")
    return infos[index]


def _info(index: int, physical: Any) -> DeviceInfo:
    properties = vk.vkGetPhysicalDeviceProperties(physical)
    limits, api = properties.limits, properties.apiVersion
    return DeviceInfo(
        index=index,
        name=properties.deviceName,
        kind=_DEVICE_KINDS[properties.deviceType],
        api_version=f"{api >> 22 & 0x7F}.{api >> 12 & 0x3FF}.{api & 0xFFF}",
        driver_version=properties.driverVersion,
        max_image_2d=limits.maxImageDimension2D,
        max_image_3d=limits.maxImageDimension3D,
        max_work_group_invocations=limits.maxComputeWorkGroupInvocations,
        max_storage_buffer_bytes=limits.maxStorageBufferRange,
        timestamp_period_ns=limits.timestampPeriod,
        storage_16bit=_has_16bit_storage(physical),
    )


def _has_16bit_storage(physical: Any) -> bool:
    storage = vk.VkPhysicalDevice16BitStorageFeatures()
    features = vk.VkPhysicalDeviceFeatures2(pNext=storage)
    vk.vkGetPhysicalDeviceFeatures2(physical, features)
    return bool(storage.storageBuffer16BitAccess)


def _compute_family(physical: Any) -> int:
    for index, family in enumerate(vk.vkGetPhysicalDeviceQueueFamilyProperties(physical)):
        if family.queueFlags & vk.VK_QUEUE_COMPUTE_BIT:
            return index
    raise VkfuseError("the Vulkan device has no compute queue", hint="choose another with --device")


def _create(physical: Any, family: int, info: DeviceInfo) -> Any:
    storage = vk.VkPhysicalDevice16BitStorageFeatures(storageBuffer16BitAccess=info.storage_16bit)
    queue = vk.VkDeviceQueueCreateInfo(queueFamilyIndex=family, queueCount=1, pQueuePriorities=[1.0])
    create = vk.VkDeviceCreateInfo(pNext=storage, queueCreateInfoCount=1, pQueueCreateInfos=[queue])
    return vk.vkCreateDevice(physical, create, None)
