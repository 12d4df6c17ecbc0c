"""What every quantized matmul of the runtime wants of its activations."""

import numpy as np

from vkfuse.pte.enums import ScalarType
from vkfuse.tables.decisions import Refusal
from vkfuse.tables.floats import rounded
from vkfuse.tables.grid import Grid
from vkfuse.tables.groups import SHADER_VECTOR


def refused_activations(grid: Grid, activations: ScalarType) -> Refusal | None:
    """Why no quantized matmul takes such activations, or takes them with the grid's scales."""
    if activations not in {ScalarType.FLOAT, ScalarType.HALF}:
        return Refusal(
            code="activation-dtype",
            detail=f"activations are {activations.label}, which Vulkan has not",
            hint="--compute float32, or export in float32 or float16",
        )
    if grid.columns % SHADER_VECTOR:
        return Refusal(
            code="inputs-not-multiple-of-4",
            detail=f"{grid.columns} input features: the runtime reads four at a time",
            hint="pad the layer's in_features to a multiple of 4",
        )
    if not np.array_equal(rounded(grid.scales, activations), grid.scales):
        return Refusal(
            code="scale-dtype",
            detail=f"{grid.scales.dtype} scales with {activations.label} activations: the runtime has no such shader",
            hint=f"quantize with scales in {activations.label}",
        )
    return None
