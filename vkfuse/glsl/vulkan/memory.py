"""Device memory: storage and uniform buffers, sampled and storage images, and copies to and from numpy arrays."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import Enum
from math import prod
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from vkfuse.glsl.vulkan.device import Device
from vkfuse.glsl.vulkan.instance import VulkanCallError, made, vk

Extent: TypeAlias = tuple[int, int, int]
Array: TypeAlias = npt.NDArray[Any]


class Texel(Enum):
    """Image formats that the runtime uses; the value is numpy's type of one of the four components."""

    INT32 = "int32"
    FLOAT32 = "float32"
    FLOAT16 = "float16"

    @property
    def nbytes(self) -> int:
        """Bytes of one texel of four components."""
        return 4 * np.dtype(self.value).itemsize


@dataclass(slots=True, kw_only=True)
class Buffer:
    """A buffer of `nbytes` with memory of its own."""

    device: Device
    handle: Any
    memory: Any
    nbytes: int


@dataclass(slots=True, kw_only=True)
class Image:
    """A 2-D or 3-D image of four-component texels, in layout GENERAL after its creation."""

    device: Device
    handle: Any
    view: Any
    extent: Extent
    texel: Texel

    @property
    def nbytes(self) -> int:
        """Bytes of its texels, tightly packed."""
        return prod(self.extent) * self.texel.nbytes


Resource: TypeAlias = Buffer | Image


def create_buffer(scope: ExitStack, device: Device, nbytes: int, *, host: bool = False) -> Buffer:
    """A buffer for any use that the runner has, until the scope ends; `host`: in memory that the CPU can map."""
    usage = (
        vk.VK_BUFFER_USAGE_STORAGE_BUFFER_BIT
        | vk.VK_BUFFER_USAGE_UNIFORM_BUFFER_BIT
        | vk.VK_BUFFER_USAGE_TRANSFER_SRC_BIT
        | vk.VK_BUFFER_USAGE_TRANSFER_DST_BIT
    )
    handle = vk.vkCreateBuffer(device.handle, vk.VkBufferCreateInfo(size=max(nbytes, 4), usage=usage), None)
    requirements = vk.vkGetBufferMemoryRequirements(device.handle, handle)
    memory = _allocate(scope, device, requirements, host=host)
    scope.callback(vk.vkDestroyBuffer, device.handle, handle, None)
    vk.vkBindBufferMemory(device.handle, handle, memory, 0)
    return Buffer(device=device, handle=handle, memory=memory, nbytes=nbytes)


def create_image(scope: ExitStack, device: Device, extent: Extent, texel: Texel, *, dimensions: int) -> Image:
    """An image as the runtime creates all of its, until the scope ends: optimal tiling, sampled and written by shaders."""
    usage = (
        vk.VK_IMAGE_USAGE_SAMPLED_BIT
        | vk.VK_IMAGE_USAGE_STORAGE_BIT
        | vk.VK_IMAGE_USAGE_TRANSFER_SRC_BIT
        | vk.VK_IMAGE_USAGE_TRANSFER_DST_BIT
    )
    info = vk.VkImageCreateInfo(
        imageType=vk.VK_IMAGE_TYPE_2D if dimensions == 2 else vk.VK_IMAGE_TYPE_3D,
        format=_format(texel),
        extent=vk.VkExtent3D(*extent),
        mipLevels=1,
        arrayLayers=1,
        samples=vk.VK_SAMPLE_COUNT_1_BIT,
        tiling=vk.VK_IMAGE_TILING_OPTIMAL,
        usage=usage,
    )
    handle = vk.vkCreateImage(device.handle, info, None)
    memory = _allocate(scope, device, vk.vkGetImageMemoryRequirements(device.handle, handle), host=False)
    scope.callback(vk.vkDestroyImage, device.handle, handle, None)
    vk.vkBindImageMemory(device.handle, handle, memory, 0)
    view = made(scope, device.handle, "ImageView", _view(handle, texel, dimensions))
    device.submit(lambda commands: _to_general(commands, handle))
    return Image(device=device, handle=handle, view=view, extent=extent, texel=texel)


def upload(resource: Resource, data: Array) -> None:
    """Copy `data` (C order; for an image [depth, height, width, 4]) to the start of a buffer or to all of an image."""
    if data.nbytes == 0:
        return
    with ExitStack() as scope:
        staging = create_buffer(scope, resource.device, data.nbytes, host=True)
        with _mapped(staging, data.nbytes) as bytes_:
            bytes_[:] = np.ascontiguousarray(data).view(np.uint8).reshape(-1)
        resource.device.submit(lambda commands: _record_copy(commands, resource, staging, to_resource=True))


def download(resource: Resource, nbytes: int | None = None) -> npt.NDArray[np.uint8]:
    """Copy a whole image, or the first `nbytes` of a buffer, into an array of bytes."""
    count = resource.nbytes if nbytes is None else nbytes
    if count == 0:
        return np.empty(0, np.uint8)
    with ExitStack() as scope:
        staging = create_buffer(scope, resource.device, count, host=True)
        resource.device.submit(lambda commands: _record_copy(commands, resource, staging, to_resource=False))
        with _mapped(staging, count) as bytes_:
            return bytes_.copy()


def _record_copy(commands: Any, resource: Resource, staging: Buffer, *, to_resource: bool) -> None:
    if isinstance(resource, Buffer):
        pair = (staging.handle, resource.handle) if to_resource else (resource.handle, staging.handle)
        vk.vkCmdCopyBuffer(commands, *pair, 1, [vk.VkBufferCopy(size=staging.nbytes)])
        return
    layers = vk.VkImageSubresourceLayers(aspectMask=vk.VK_IMAGE_ASPECT_COLOR_BIT, layerCount=1)
    region = vk.VkBufferImageCopy(imageSubresource=layers, imageExtent=vk.VkExtent3D(*resource.extent))
    general = vk.VK_IMAGE_LAYOUT_GENERAL
    if to_resource:
        vk.vkCmdCopyBufferToImage(commands, staging.handle, resource.handle, general, 1, [region])
    else:
        vk.vkCmdCopyImageToBuffer(commands, resource.handle, general, staging.handle, 1, [region])


@contextmanager
def _mapped(buffer: Buffer, nbytes: int) -> Iterator[npt.NDArray[np.uint8]]:
    """The first `nbytes` of a host-visible buffer as a numpy array."""
    device = buffer.device.handle
    mapping = vk.vkMapMemory(device, buffer.memory, 0, nbytes, 0)
    try:
        yield np.frombuffer(mapping, np.uint8)
    finally:
        vk.vkUnmapMemory(device, buffer.memory)


def _allocate(scope: ExitStack, device: Device, requirements: Any, *, host: bool) -> Any:
    if host:
        wanted = vk.VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | vk.VK_MEMORY_PROPERTY_HOST_COHERENT_BIT
    else:
        wanted = vk.VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT
    index = _memory_type(device, requirements.memoryTypeBits, wanted)
    info = vk.VkMemoryAllocateInfo(allocationSize=requirements.size, memoryTypeIndex=index)
    try:
        memory = vk.vkAllocateMemory(device.handle, info, None)
    except vk.VkError as error:
        raise VulkanCallError(
            f"the device has no room for {requirements.size} bytes", hint="choose smaller sizes"
        ) from error
    scope.callback(vk.vkFreeMemory, device.handle, memory, None)
    return memory


def _memory_type(device: Device, allowed: int, wanted: int) -> int:
    """The first memory type with all wanted properties."""
    properties = vk.vkGetPhysicalDeviceMemoryProperties(device.physical)
    for index in range(properties.memoryTypeCount):
        if allowed >> index & 1 and properties.memoryTypes[index].propertyFlags & wanted == wanted:
            return index
    raise VulkanCallError(f"the device has no memory with properties {wanted:#x}")


def _format(texel: Texel) -> int:
    formats: dict[Texel, int] = {
        Texel.INT32: vk.VK_FORMAT_R32G32B32A32_SINT,
        Texel.FLOAT32: vk.VK_FORMAT_R32G32B32A32_SFLOAT,
        Texel.FLOAT16: vk.VK_FORMAT_R16G16B16A16_SFLOAT,
    }
    return formats[texel]


def _view(handle: Any, texel: Texel, dimensions: int) -> Any:
    return vk.VkImageViewCreateInfo(
        image=handle,
        viewType=vk.VK_IMAGE_VIEW_TYPE_2D if dimensions == 2 else vk.VK_IMAGE_VIEW_TYPE_3D,
        format=_format(texel),
        subresourceRange=_whole_image(),
    )


def _to_general(commands: Any, handle: Any) -> None:
    """Record the transition of a new image to layout GENERAL."""
    everything = vk.VK_PIPELINE_STAGE_ALL_COMMANDS_BIT
    barrier = vk.VkImageMemoryBarrier(
        dstAccessMask=vk.VK_ACCESS_MEMORY_READ_BIT | vk.VK_ACCESS_MEMORY_WRITE_BIT,
        oldLayout=vk.VK_IMAGE_LAYOUT_UNDEFINED,
        newLayout=vk.VK_IMAGE_LAYOUT_GENERAL,
        srcQueueFamilyIndex=vk.VK_QUEUE_FAMILY_IGNORED,
        dstQueueFamilyIndex=vk.VK_QUEUE_FAMILY_IGNORED,
        image=handle,
        subresourceRange=_whole_image(),
    )
    vk.vkCmdPipelineBarrier(commands, everything, everything, 0, 0, None, 0, None, 1, [barrier])


def _whole_image() -> Any:
    return vk.VkImageSubresourceRange(aspectMask=vk.VK_IMAGE_ASPECT_COLOR_BIT, levelCount=1, layerCount=1)
