"""Lookups of a file on a Vulkan driver: their shader, on their own weights and indices, bit for bit.

The shader is vkfuse's own, which takes the place of ExecuTorch's under the same names and bindings.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch

from vkfuse.glsl.geometry import global_size, local_size, work_groups
from vkfuse.glsl.manifest import shipped_spirv
from vkfuse.glsl.operands import Lookup, operands, read_output
from vkfuse.glsl.variants import DType, TensorStorage, Variant, WeightLayout
from vkfuse.glsl.vulkan.device import Device, open_device
from vkfuse.glsl.vulkan.pipeline import open_pipeline
from vkfuse.multiples import ceil_div
from vkfuse.pte.enums import VkStorageType
from vkfuse.pte.place import Place
from vkfuse.runtime.operators.lookup import FUSED as LOOKUP
from vkfuse.verify.steps import Step
from vkfuse.verify.verdict import DeviceCheck
from vkfuse.verify.vulkan.embedding import unpack_nibbles

_DTYPES: Final = {torch.float16: DType.HALF, torch.float32: DType.FLOAT}


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceLookup:
    """A lookup that a run of the file made, and what the executor got."""

    where: Place
    weight: torch.Tensor
    scales: torch.Tensor
    group_size: int
    indices: torch.Tensor
    low_first: bool
    output: torch.Tensor
    storage: TensorStorage

    def variant(self, device: Device) -> Variant:
        """Return the shader that the runtime picks on a device (add_embedding_q4gsw_node)."""
        layout = WeightLayout.FLAT
        if self.low_first:
            texels = max(self.weight.shape[1] // 2, ceil_div(self.weight.shape[0], 8))
            fits = texels <= device.info.max_image_2d
            layout = WeightLayout.LINEAR_TEXTURE2D if fits else WeightLayout.LINEAR_BUFFER
        return Variant(
            scales=_DTYPES[self.scales.dtype],
            weight=layout,
            storage=self.storage,
            dtype=_DTYPES[self.output.dtype],
        )

    def operands(self) -> Lookup:
        """Return the operands as the device layer takes them."""
        return Lookup(
            values=unpack_nibbles(self.weight, low_first=self.low_first).char().numpy(),
            scales=self.scales.reshape(self.weight.shape[0], -1).numpy(),
            group_size=self.group_size,
            indices=self.indices.to(torch.int32).numpy(),
        )


class LookupCollector:
    """Watches a run and keeps its lookups."""

    def __init__(self) -> None:
        self.lookups: list[DeviceLookup] = []

    def __call__(self, step: Step) -> None:
        """Look at one operator."""
        if step.name != LOOKUP:
            return
        weight, scales, group_size, indices, low_first = step.inputs[:5]
        output = step.outputs[0]
        if not isinstance(weight, torch.Tensor) or not isinstance(scales, torch.Tensor):
            return
        if not isinstance(indices, torch.Tensor) or not isinstance(output, torch.Tensor):
            return
        if not isinstance(group_size, int):
            return
        buffer = step.storages[-1] is VkStorageType.BUFFER
        self.lookups.append(
            DeviceLookup(
                where=step.where,
                weight=weight,
                scales=scales,
                group_size=group_size,
                indices=indices,
                low_first=bool(low_first),
                output=output.clone(),
                storage=TensorStorage.BUFFER if buffer else TensorStorage.TEXTURE3D,
            )
        )


def check_on_device(lookups: list[DeviceLookup]) -> Iterator[DeviceCheck]:
    """Yield the outcome of each lookup on the first Vulkan device. NoVulkanError, MissingPackageError."""
    if not lookups:
        return
    with open_device() as device:
        for lookup in lookups:
            yield _checked(device, lookup)


def _checked(device: Device, lookup: DeviceLookup) -> DeviceCheck:
    variant, operands_ = lookup.variant(device), lookup.operands()
    global_ = global_size(operands_.sizes)
    local = local_size(global_)
    push = variant.push_constants(lookup.group_size)
    with (
        open_pipeline(device, shipped_spirv(variant), variant.bindings, local) as pipeline,
        operands(device, variant, operands_) as resources,
    ):
        descriptors = pipeline.bind(resources)
        groups = work_groups(global_, local)
        device.submit(lambda commands: pipeline.record(commands, descriptors, push, groups))
        got, intact = read_output(resources[0], variant, operands_)
    expected = lookup.output.numpy()
    bits = np.dtype(f"u{expected.dtype.itemsize}")
    differing = int((got.view(bits) != expected.view(bits)).sum())
    return DeviceCheck(
        where=str(lookup.where),
        shader=variant.name,
        driver=device.info.name,
        values=expected.size,
        differing=differing if intact else expected.size,
    )
