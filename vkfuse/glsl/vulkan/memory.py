"""Device memory: storage and uniform buffers, sampled and storage images, and copies to and from numpy arrays."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from vkfuse.glsl.vulkan.device import Device
from vkfuse.glsl.vulkan.loader import VulkanCallError, vulkan

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
    """A buffer of `nbytes` with memory of its own, mapped where `host` is true."""

    device: Device
    handle: Any
    memory: Any
    nbytes: int

    def free(self) -> None:
        """Destroy the buffer and its memory."""
        vk = vulkan()
        vk.vkDestroyBuffer(self.device.handle, self.handle, None)
        vk.vkFreeMemory(self.device.handle, self.memory, None)


@dataclass(slots=True, kw_only=True)
class Image:
    """A 2-D or 3-D image of four-component texels, in layout GENERAL after its creation."""

    device: Device
    handle: Any
    memory: Any
    view: Any
    extent: Extent
    texel: Texel

    @property
    def nbytes(self) -> int:
        """Bytes of its texels, tightly packed."""
        return self.extent[0] * self.extent[1] * self.extent[2] * self.texel.nbytes

    def free(self) -> None:
        """Destroy the image, its view and its memory."""
        vk = vulkan()
        vk.vkDestroyImageView(self.device.handle, self.view, None)
        vk.vkDestroyImage(self.device.handle, self.handle, None)
        vk.vkFreeMemory(self.device.handle, self.memory, None)


Resource: TypeAlias = Buffer | Image


def create_buffer(device: Device, nbytes: int, *, host: bool = False) -> Buffer:
    """A buffer for any use that the runner has; `host`: in memory that the CPU can map."""
    vk = vulkan()
    usage = (
        vk.VK_BUFFER_USAGE_STORAGE_BUFFER_BIT
        | vk.VK_BUFFER_USAGE_UNIFORM_BUFFER_BIT
        | vk.VK_BUFFER_USAGE_TRANSFER_SRC_BIT
        | vk.VK_BUFFER_USAGE_TRANSFER_DST_BIT
    )
    handle = vk.vkCreateBuffer(device.handle, vk.VkBufferCreateInfo(size=max(nbytes, 4), usage=usage), None)
    requirements = vk.vkGetBufferMemoryRequirements(device.handle, handle)
    memory = _allocate(device, requirements, host=host)
    vk.vkBindBufferMemory(device.handle, handle, memory, 0)
    return Buffer(device=device, handle=handle, memory=memory, nbytes=nbytes)


def create_image(device: Device, extent: Extent, texel: Texel, *, dimensions: int) -> Image:
    """An image as the runtime creates all of its: optimal tiling, sampled and written by shaders."""
    vk = vulkan()
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
    memory = _allocate(device, vk.vkGetImageMemoryRequirements(device.handle, handle), host=False)
    vk.vkBindImageMemory(device.handle, handle, memory, 0)
    view = _create_view(device, handle, texel, dimensions)
    image = Image(device=device, handle=handle, memory=memory, view=view, extent=extent, texel=texel)
    device.submit(lambda commands: _to_general(commands, handle))
    return image


def upload(resource: Resource, data: Array) -> None:
    """Copy `data` (C order; for an image [depth, height, width, 4]) to the start of a buffer or to all of an image."""
    if data.nbytes == 0:
        return
    with _staging(resource.device, data.nbytes) as staging:
        with _mapped(staging, data.nbytes) as bytes_:
            bytes_[:] = np.ascontiguousarray(data).view(np.uint8).reshape(-1)
        resource.device.submit(lambda commands: _record_copy(commands, resource, staging, to_resource=True))


def download(resource: Resource, nbytes: int | None = None) -> npt.NDArray[np.uint8]:
    """Copy a whole image, or the first `nbytes` of a buffer, into an array of bytes."""
    count = resource.nbytes if nbytes is None else nbytes
    if count == 0:
        return np.empty(0, np.uint8)
    with _staging(resource.device, count) as staging:
        resource.device.submit(lambda commands: _record_copy(commands, resource, staging, to_resource=False))
        with _mapped(staging, count) as bytes_:
            return bytes_.copy()


def _record_copy(commands: Any, resource: Resource, staging: Buffer, *, to_resource: bool) -> None:
    """Record the copy of all of `staging` to or from `resource`."""
    vk = vulkan()
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
def _staging(device: Device, nbytes: int) -> Iterator[Buffer]:
    staging = create_buffer(device, nbytes, host=True)
    try:
        yield staging
    finally:
        staging.free()


@contextmanager
def _mapped(buffer: Buffer, nbytes: int) -> Iterator[npt.NDArray[np.uint8]]:
    """The first `nbytes` of a host-visible buffer as a numpy array."""
    vk = vulkan()
    device = buffer.device.handle
    mapping = vk.vkMapMemory(device, buffer.memory, 0, nbytes, 0)
    try:
        yield np.frombuffer(mapping, np.uint8)
    finally:
        vk.vkUnmapMemory(device, buffer.memory)


def _allocate(device: Device, requirements: Any, *, host: bool) -> Any:
    vk = vulkan()
    if host:
        wanted = vk.VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | vk.VK_MEMORY_PROPERTY_HOST_COHERENT_BIT
    else:
        wanted = vk.VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT
    index = _memory_type(device, requirements.memoryTypeBits, wanted)
    info = vk.VkMemoryAllocateInfo(allocationSize=requirements.size, memoryTypeIndex=index)
    try:
        return vk.vkAllocateMemory(device.handle, info, None)
    except vk.VkError as error:
        raise VulkanCallError(
            f"the device has no room for {requirements.size} bytes", hint="choose smaller sizes"
        ) from error


def _memory_type(device: Device, allowed: int, wanted: int) -> int:
    """The first memory type with all wanted properties."""
    properties = vulkan().vkGetPhysicalDeviceMemoryProperties(device.physical)
    for index in range(properties.memoryTypeCount):
        if allowed >> index & 1 and properties.memoryTypes[index].propertyFlags & wanted == wanted:
            return index
    raise VulkanCallError(f"the device has no memory with properties {wanted:#x}")


def _format(texel: Texel) -> int:
    vk = vulkan()
    formats: dict[Texel, int] = {
        Texel.INT32: vk.VK_FORMAT_R32G32B32A32_SINT,
        Texel.FLOAT32: vk.VK_FORMAT_R32G32B32A32_SFLOAT,
        Texel.FLOAT16: vk.VK_FORMAT_R16G16B16A16_SFLOAT,
    }
    return formats[texel]


def _create_view(device: Device, handle: Any, texel: Texel, dimensions: int) -> Any:
    vk = vulkan()
    info = vk.VkImageViewCreateInfo(
        image=handle,
        viewType=vk.VK_IMAGE_VIEW_TYPE_2D if dimensions == 2 else vk.VK_IMAGE_VIEW_TYPE_3D,
        format=_format(texel),
        subresourceRange=_whole_image(vk),
    )
    return vk.vkCreateImageView(device.handle, info, None)


def _to_general(commands: Any, handle: Any) -> None:
    """Record the transition of a new image to layout GENERAL."""
    vk = vulkan()
    everything = vk.VK_PIPELINE_STAGE_ALL_COMMANDS_BIT
    barrier = vk.VkImageMemoryBarrier(
        dstAccessMask=vk.VK_ACCESS_MEMORY_READ_BIT | vk.VK_ACCESS_MEMORY_WRITE_BIT,
        oldLayout=vk.VK_IMAGE_LAYOUT_UNDEFINED,
        newLayout=vk.VK_IMAGE_LAYOUT_GENERAL,
        srcQueueFamilyIndex=vk.VK_QUEUE_FAMILY_IGNORED,
        dstQueueFamilyIndex=vk.VK_QUEUE_FAMILY_IGNORED,
        image=handle,
        subresourceRange=_whole_image(vk),
    )
    vk.vkCmdPipelineBarrier(commands, everything, everything, 0, 0, None, 0, None, 1, [barrier])


def _whole_image(vk: Any) -> Any:
    return vk.VkImageSubresourceRange(aspectMask=vk.VK_IMAGE_ASPECT_COLOR_BIT, levelCount=1, layerCount=1)
