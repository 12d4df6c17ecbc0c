"""Lookups of a file on a Vulkan driver: their shader, on their own weights and indices, bit for bit.

The shader is vkfuse's own, which takes the place of ExecuTorch's under the same names and bindings.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

import numpy as np
import torch

from vkfuse.glsl.geometry import global_size, local_size
from vkfuse.glsl.manifest import shipped_spirv
from vkfuse.glsl.operands import Lookup, looked_up
from vkfuse.glsl.variants import DType, TensorStorage, Variant, WeightLayout
from vkfuse.glsl.vulkan.device import Device, open_device
from vkfuse.glsl.vulkan.pipeline import open_pipeline
from vkfuse.multiples import ceil_div
from vkfuse.pte.enums import VkStorageType
from vkfuse.runtime.operators.lookup import FUSED as LOOKUP
from vkfuse.verify.steps import Step
from vkfuse.verify.verdict import DeviceCheck
from vkfuse.verify.vulkan.embedding import unpack_nibbles

_DTYPES: Final = {torch.float16: DType.HALF, torch.float32: DType.FLOAT}


class LookupCollector:
    """Watches a run and keeps its lookups: what went in, and a copy of what the executor got."""

    def __init__(self) -> None:
        self.lookups: list[Step] = []

    def __call__(self, step: Step) -> None:
        """Look at one operator."""
        if step.name == LOOKUP:
            outputs = (of.clone() for of in step.outputs if isinstance(of, torch.Tensor))
            self.lookups.append(replace(step, outputs=tuple(outputs)))


def _variant(lookup: Step, device: Device) -> Variant:
    """Return the shader that the runtime picks on a device (add_embedding_q4gsw_node)."""
    (weight, scales, _, _, low_first), (output,) = _tensors(lookup)
    layout = WeightLayout.FLAT
    if low_first:
        texels = max(weight.shape[1] // 2, ceil_div(weight.shape[0], 8))
        fits = texels <= device.info.max_image_2d
        layout = WeightLayout.LINEAR_TEXTURE2D if fits else WeightLayout.LINEAR_BUFFER
    buffer = lookup.storages[-1] is VkStorageType.BUFFER
    return Variant(
        scales=_DTYPES[scales.dtype],
        weight=layout,
        storage=TensorStorage.BUFFER if buffer else TensorStorage.TEXTURE3D,
        dtype=_DTYPES[output.dtype],
    )


def _operands(lookup: Step) -> Lookup:
    """Return the operands as the device layer takes them."""
    (weight, scales, group_size, indices, low_first), _ = _tensors(lookup)
    return Lookup(
        values=unpack_nibbles(weight, low_first=low_first).char().numpy(),
        scales=scales.reshape(weight.shape[0], -1).numpy(),
        group_size=group_size,
        indices=indices.to(torch.int32).numpy(),
    )


def _tensors(lookup: Step) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """(weight, scales, group size, indices, whether low nibbles come first) and the output, as the executor had them."""
    return lookup.inputs[:5], lookup.outputs


def check_on_device(lookups: list[Step]) -> Iterator[DeviceCheck]:
    """Yield the outcome of each lookup on the first Vulkan device. NoVulkanError, MissingPackageError."""
    if not lookups:
        return
    with open_device() as device:
        for lookup in lookups:
            yield _checked(device, lookup)


def _checked(device: Device, lookup: Step) -> DeviceCheck:
    variant, operands_ = _variant(lookup, device), _operands(lookup)
    local = local_size(global_size(operands_.sizes))
    with open_pipeline(device, shipped_spirv(variant), variant.bindings, local) as pipeline:
        got, intact = looked_up(pipeline, variant, operands_, local)
    (output,) = _tensors(lookup)[1]
    expected = output.numpy()
    bits = np.dtype(f"u{expected.dtype.itemsize}")
    differing = int((got.view(bits) != expected.view(bits)).sum())
    return DeviceCheck(
        where=str(lookup.where),
        shader=variant.name,
        driver=device.info.name,
        values=expected.size,
        differing=differing if intact else expected.size,
    )
