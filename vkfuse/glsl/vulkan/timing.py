"""GPU time by timestamp queries."""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from vkfuse.glsl.vulkan.device import Device
from vkfuse.glsl.vulkan.loader import vulkan


Recorder: TypeAlias = Callable[[Any], None]


def gpu_seconds(device: Device, record: Recorder, *, before: Recorder | None = None) -> float:
    """Seconds on the device from the start to the end of what `record` records; `before` runs first, untimed."""
    vk = vulkan()
    info = vk.VkQueryPoolCreateInfo(queryType=vk.VK_QUERY_TYPE_TIMESTAMP, queryCount=2)
    queries = vk.vkCreateQueryPool(device.handle, info, None)

    def timed(commands: Any) -> None:
        vk.vkCmdResetQueryPool(commands, queries, 0, 2)
        if before is not None:
            before(commands)
            barrier(commands)
        vk.vkCmdWriteTimestamp(commands, vk.VK_PIPELINE_STAGE_BOTTOM_OF_PIPE_BIT, queries, 0)
        record(commands)
        vk.vkCmdWriteTimestamp(commands, vk.VK_PIPELINE_STAGE_BOTTOM_OF_PIPE_BIT, queries, 1)

    try:
        device.submit(timed)
        return _elapsed_ticks(device, queries) * device.info.timestamp_period_ns * 1e-9
    finally:
        vk.vkDestroyQueryPool(device.handle, queries, None)


def _elapsed_ticks(device: Device, queries: Any) -> int:
    vk = vulkan()
    ticks = np.zeros(2, np.uint64)
    flags = vk.VK_QUERY_RESULT_64_BIT | vk.VK_QUERY_RESULT_WAIT_BIT
    data = vk.ffi.from_buffer(ticks)
    vk.vkGetQueryPoolResults(device.handle, queries, 0, 2, ticks.nbytes, data, 8, flags)
    return int(ticks[1] - ticks[0])


def barrier(commands: Any) -> None:
    """Record a full barrier: what follows starts when what went before has ended."""
    vk = vulkan()
    everything = vk.VK_PIPELINE_STAGE_ALL_COMMANDS_BIT
    access = vk.VK_ACCESS_MEMORY_READ_BIT | vk.VK_ACCESS_MEMORY_WRITE_BIT
    memory = vk.VkMemoryBarrier(srcAccessMask=access, dstAccessMask=access)
    vk.vkCmdPipelineBarrier(commands, everything, everything, 0, 1, [memory], 0, None, 0, None)
