"""A compute pipeline from SPIR-V: bindings, push constants, specialized local size, dispatch; its time by timestamps."""

import struct
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from vkfuse.glsl.geometry import Size3
from vkfuse.glsl.variants import BindingKind
from vkfuse.glsl.vulkan.device import Device, Recorder
from vkfuse.glsl.vulkan.instance import VulkanCallError, made, vk
from vkfuse.glsl.vulkan.memory import Buffer, Resource

PUSH_CONSTANT_BYTES = 8


@dataclass(slots=True, kw_only=True)
class Pipeline:
    """A pipeline and what its descriptor sets are made of."""

    device: Device
    kinds: tuple[BindingKind, ...]
    handle: Any
    layout: Any
    set_layout: Any
    pool: Any
    sampler: Any

    def bind(self, resources: Sequence[Resource]) -> Any:
        """A descriptor set with `resources` at bindings 0, 1, ...; freed with the pipeline."""
        allocate = vk.VkDescriptorSetAllocateInfo(
            descriptorPool=self.pool, descriptorSetCount=1, pSetLayouts=[self.set_layout]
        )
        descriptors = vk.vkAllocateDescriptorSets(self.device.handle, allocate)[0]
        writes = [self._write(descriptors, binding, resource) for binding, resource in enumerate(resources)]
        vk.vkUpdateDescriptorSets(self.device.handle, len(writes), writes, 0, None)
        return descriptors

    def _write(self, descriptors: Any, binding: int, resource: Resource) -> Any:
        target: dict[str, Any]
        if isinstance(resource, Buffer):
            target = {
                "pBufferInfo": [vk.VkDescriptorBufferInfo(buffer=resource.handle, range=resource.nbytes)]
            }
        else:
            image = vk.VkDescriptorImageInfo(
                sampler=self.sampler, imageView=resource.view, imageLayout=vk.VK_IMAGE_LAYOUT_GENERAL
            )
            target = {"pImageInfo": [image]}
        return vk.VkWriteDescriptorSet(
            dstSet=descriptors,
            dstBinding=binding,
            descriptorCount=1,
            descriptorType=_descriptor_type(self.kinds[binding]),
            **target,
        )

    def record(self, commands: Any, descriptors: Any, push: bytes, groups: Size3) -> None:
        """Record one dispatch of `groups` work groups; `push`: the eight bytes of push constants."""
        compute = vk.VK_PIPELINE_BIND_POINT_COMPUTE
        vk.vkCmdBindPipeline(commands, compute, self.handle)
        vk.vkCmdBindDescriptorSets(commands, compute, self.layout, 0, 1, [descriptors], 0, None)
        constants = vk.ffi.from_buffer(push)
        vk.vkCmdPushConstants(commands, self.layout, vk.VK_SHADER_STAGE_COMPUTE_BIT, 0, len(push), constants)
        vk.vkCmdDispatch(commands, *groups)


@contextmanager
def open_pipeline(
    device: Device, spirv: bytes, kinds: tuple[BindingKind, ...], local: Size3, *, sets: int = 1
) -> Iterator[Pipeline]:
    """Compile `spirv` for a local size (specialization constants 0-2), with room for `sets` descriptor sets."""
    constants = vk.VkPushConstantRange(stageFlags=vk.VK_SHADER_STAGE_COMPUTE_BIT, size=PUSH_CONSTANT_BYTES)
    with ExitStack() as scope:
        make = partial(made, scope, device.handle)
        set_layout = make("DescriptorSetLayout", _set_layout(kinds))
        layout_info = vk.VkPipelineLayoutCreateInfo(
            pSetLayouts=[set_layout],
            setLayoutCount=1,
            pushConstantRangeCount=1,
            pPushConstantRanges=[constants],
        )
        layout = make("PipelineLayout", layout_info)
        handle = _compile(device, spirv, layout, local)
        scope.callback(vk.vkDestroyPipeline, device.handle, handle, None)
        yield Pipeline(
            device=device,
            kinds=kinds,
            handle=handle,
            layout=layout,
            set_layout=set_layout,
            pool=make("DescriptorPool", _pool(kinds, sets)),
            sampler=make("Sampler", vk.VkSamplerCreateInfo()),
        )


def _compile(device: Device, spirv: bytes, layout: Any, local: Size3) -> Any:
    entries = [vk.VkSpecializationMapEntry(constantID=i, offset=4 * i, size=4) for i in range(3)]
    sizes = vk.ffi.from_buffer(struct.pack("<3I", *local))
    constants = vk.VkSpecializationInfo(mapEntryCount=3, pMapEntries=entries, dataSize=12, pData=sizes)
    with ExitStack() as scope:
        code = vk.VkShaderModuleCreateInfo(codeSize=len(spirv), pCode=spirv)
        stage = vk.VkPipelineShaderStageCreateInfo(
            stage=vk.VK_SHADER_STAGE_COMPUTE_BIT,
            module=made(scope, device.handle, "ShaderModule", code),
            pName="main",
            pSpecializationInfo=constants,
        )
        info = vk.VkComputePipelineCreateInfo(stage=stage, layout=layout)
        try:
            return vk.vkCreateComputePipelines(device.handle, vk.VK_NULL_HANDLE, 1, [info], None)[0]
        except vk.VkError as error:
            raise VulkanCallError(f"the driver refused a shader: {type(error).__name__}") from error


def _descriptor_type(kind: BindingKind) -> int:
    value: int = getattr(vk, f"VK_DESCRIPTOR_TYPE_{kind}")
    return value


def _set_layout(kinds: tuple[BindingKind, ...]) -> Any:
    bindings = [
        vk.VkDescriptorSetLayoutBinding(
            binding=binding,
            descriptorType=_descriptor_type(kind),
            descriptorCount=1,
            stageFlags=vk.VK_SHADER_STAGE_COMPUTE_BIT,
        )
        for binding, kind in enumerate(kinds)
    ]
    return vk.VkDescriptorSetLayoutCreateInfo(bindingCount=len(bindings), pBindings=bindings)


def _pool(kinds: tuple[BindingKind, ...], sets: int) -> Any:
    sizes = [
        vk.VkDescriptorPoolSize(type=_descriptor_type(kind), descriptorCount=sets * kinds.count(kind))
        for kind in sorted(set(kinds))
    ]
    return vk.VkDescriptorPoolCreateInfo(maxSets=sets, poolSizeCount=len(sizes), pPoolSizes=sizes)


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
