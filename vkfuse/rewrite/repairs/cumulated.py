"""Cumulative sums, which no Vulkan runtime has, in steps: each adds what is one, two, four and so on places in front."""

from math import prod

import torch
from torch import fx

from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.operands import is_dynamic
from vkfuse.rewrite.repairs.each import replaces

aten = torch.ops.aten

_LONGEST = 1024  # ten steps


@replaces(aten.cumsum.default, code="cumulative-sums-in-steps", detail="sums in another order")
def cumulative_sums_in_steps(
    editor: GraphEditor, node: fx.Node, x: torch.Tensor, dim: int
) -> torch.Tensor | None:
    """Replace each cumulative sum of floats along at most 1,024 places, of static sizes (Hillis and Steele, 1986)."""
    if is_dynamic(x) or node in editor.constants or not x.is_floating_point():
        return None
    if x.ndim == 0 or not 0 < x.shape[dim] <= _LONGEST or x.dtype != node.meta["val"].dtype:
        return None
    size, step, shape = x.shape[dim], 1, x.shape
    behind = prod(shape[dim % x.ndim + 1 :])
    x = x.reshape([-1, size, behind])
    while step < size:
        zeros = editor.stored(torch.zeros(x.shape[0], step, behind, dtype=x.dtype), "cumulated.zeros")
        x = x + torch.cat([zeros, x[:, : size - step]], 1)
        step *= 2
    return x.reshape([*shape])
