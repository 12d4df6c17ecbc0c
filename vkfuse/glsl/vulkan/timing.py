"""GPU time by timestamp queries."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from vkfuse.glsl.vulkan.device import Device, Recorder
from vkfuse.glsl.vulkan.loader import made, vk


@dataclass(slots=True, kw_only=True)
class Timer:
    """Recorded commands that can be run, and timed, again and again."""

    device: Device
    commands: Any
    queries: Any

    def seconds(self) -> float:
        """Run the commands; seconds on the device from their start to their end."""
        self.device.run(self.commands)
        ticks = np.zeros(2, np.uint64)
        flags = vk.VK_QUERY_RESULT_64_BIT | vk.VK_QUERY_RESULT_WAIT_BIT
        data = vk.ffi.from_buffer(ticks)
        vk.vkGetQueryPoolResults(self.device.handle, self.queries, 0, 2, ticks.nbytes, data, 8, flags)
        return int(ticks[1] - ticks[0]) * self.device.info.timestamp_period_ns * 1e-9


@contextmanager
def open_timer(device: Device, record: Recorder, *, before: Recorder | None = None) -> Iterator[Timer]:
    """A timer for what `record(commands)` records; what `before` records runs first each time, untimed."""
    info = vk.VkQueryPoolCreateInfo(queryType=vk.VK_QUERY_TYPE_TIMESTAMP, queryCount=2)

    def timed(commands: Any) -> None:
        end_of_work = vk.VK_PIPELINE_STAGE_BOTTOM_OF_PIPE_BIT
        vk.vkCmdResetQueryPool(commands, queries, 0, 2)
        if before is not None:
            before(commands)
            barrier(commands)
        vk.vkCmdWriteTimestamp(commands, end_of_work, queries, 0)
        record(commands)
        vk.vkCmdWriteTimestamp(commands, end_of_work, queries, 1)

    with ExitStack() as scope:
        queries = made(scope, device.handle, "QueryPool", info)
        commands = scope.enter_context(device.recorded(timed))
        yield Timer(device=device, commands=commands, queries=queries)


def barrier(commands: Any) -> None:
    """Record a barrier as between two dependent dispatches: what follows sees what went before."""
    stages = vk.VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT | vk.VK_PIPELINE_STAGE_TRANSFER_BIT
    written = vk.VK_ACCESS_SHADER_WRITE_BIT | vk.VK_ACCESS_TRANSFER_WRITE_BIT
    used = vk.VK_ACCESS_SHADER_READ_BIT | written
    memory = vk.VkMemoryBarrier(srcAccessMask=written, dstAccessMask=used)
    vk.vkCmdPipelineBarrier(commands, stages, stages, 0, 1, [memory], 0, None, 0, None)
