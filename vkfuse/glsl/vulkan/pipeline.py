"""A compute pipeline from SPIR-V: bindings, push constants, specialized local size, dispatch."""

import struct
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from vkfuse.glsl.geometry import Size3
from vkfuse.glsl.variants import BindingKind
from vkfuse.glsl.vulkan.device import Device
from vkfuse.glsl.vulkan.loader import VulkanCallError, made, vk
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
