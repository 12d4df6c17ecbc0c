"""Calls of the fused 4-bit matmul in a Vulkan graph, in place of a product with a matrix of floats.

Batches are multiplied as rows; outputs that were padded to eights are sliced. Source: Q4gswLinear.cpp of backends/vulkan in
ExecuTorch 1.5.
"""

from math import prod
from typing import Final

import numpy as np

from vkfuse.measure.stored import KINDS
from vkfuse.measure.tables import FloatMatmul
from vkfuse.patch.flat import is_batch, matrix, sizes_back, viewed
from vkfuse.patch.graphs import GraphEdit
from vkfuse.patch.lookups import FLOATS
from vkfuse.pte.enums import ScalarType
from vkfuse.pte.values import Int
from vkfuse.pte.vulkan import OperatorCall, VkTensor, VulkanGraph
from vkfuse.runtime.codes import Code
from vkfuse.tables.decisions import Refusal
from vkfuse.tables.floats import numbers
from vkfuse.tables.q4 import Q4Pack, linear_scales

FUSED: Final = "et_vk.linear_q4gsw.default"
_SLICE: Final = "aten.slice_copy.Tensor"
_KINDS: Final = {dtype: kind for kind, dtype in FLOATS.items()}


def activations(graph: VulkanGraph, read: FloatMatmul) -> ScalarType | None:
    """The type of a product's other operand, None for one that no fused matmul takes."""
    source, out = graph.values[read.source], graph.values[read.output]
    if not isinstance(source, VkTensor) or not isinstance(out, VkTensor) or source.dtype is not out.dtype:
        return None
    return _KINDS.get(source.dtype)


def matmul_misfit(graph: VulkanGraph, read: FloatMatmul, pack: Q4Pack, *, dynamic: bool) -> Refusal | None:
    """Return why a product cannot read a pack, None where it can."""
    source, out = graph.values[read.source], graph.values[read.output]
    if not is_batch(source) or not is_batch(out) or out.dims != (*source.dims[:-1], pack.rows):
        return Refusal(code="call-not-understood", detail="a product of other sizes than its operands")
    if pack.padded_columns != pack.columns:
        return Refusal(code=Code.COLUMNS_NOT_MULTIPLE_OF_8, detail=f"{pack.columns} input features")
    if _batched(source) and sizes_back(out.dims, dynamic=dynamic) is None:
        return Refusal(code=Code.LINEAR_INPUT_BATCHED, detail=f"a dynamic batch {list(source.dims)}")
    bias = None if read.bias is None else graph.values[read.bias]
    if isinstance(bias, VkTensor) and (
        bias.dims != (pack.rows,) or bias.dtype is not out.dtype or bias.data is None
    ):
        return Refusal(code="bias-not-constant", detail="the bias is no vector of the product's type")
    return None


def _batched(source: VkTensor) -> bool:
    return prod(source.dims[:-2]) != 1 or len(source.dims) < 2


def matmul_calls(edit: GraphEdit, pack: Q4Pack, read: FloatMatmul, *, dynamic: bool) -> list[OperatorCall]:
    """The calls that multiply by a pack. TypeError for a product that does not fit it, which the survey let pass."""
    source, out = edit.at(read.source), edit.at(read.output)
    kind = _KINDS[out.dtype] if isinstance(out, VkTensor) else None
    if not isinstance(source, VkTensor) or not isinstance(out, VkTensor) or kind is None:
        raise TypeError(f"{read.where} multiplies no tensors")
    calls: list[OperatorCall] = []
    rows, made = read.source, read.output
    back = sizes_back(out.dims, dynamic=dynamic) if _batched(source) else None
    if back is not None:
        rows, made = matrix(edit, source), matrix(edit, out)
        calls.append(viewed(edit, read.source, (-1, source.dims[-1]), rows))
    padded = made
    if pack.padded_rows != pack.rows:
        like = edit.at(made)
        if isinstance(like, VkTensor):
            padded = edit.tensor(like, dims=(*like.dims[:-1], pack.padded_rows))
    weight, scales = edit.constant(pack.packed), edit.constant(linear_scales(pack, kind))
    group, bias = edit.value(Int(pack.group_size)), _bias(edit, pack, read)
    calls.append(edit.call(FUSED, rows, weight, scales, group, bias, padded))
    if padded != made:
        calls.append(_sliced(edit, padded, pack.rows, made))
    if back is not None:
        calls.append(viewed(edit, made, back, read.output))
    return calls


def _bias(edit: GraphEdit, pack: Q4Pack, read: FloatMatmul) -> int:
    """The bias of a product, as long as the rows that are stored."""
    bias = None if read.bias is None else edit.at(read.bias)
    if not isinstance(bias, VkTensor) or bias.data is None or read.bias is None:
        return edit.value(None)
    stored = numbers(bias.data, KINDS[bias.dtype], bias.dims)
    if pack.padded_rows == pack.rows or stored is None:
        return read.bias
    return edit.constant(np.pad(stored.stored, (0, pack.padded_rows - pack.rows)))


def _sliced(edit: GraphEdit, source: int, columns: int, out: int) -> OperatorCall:
    """The first columns of a matrix."""
    value = edit.at(source)
    last = len(value.dims) - 1 if isinstance(value, VkTensor) else 0
    bounds = (edit.value(Int(number)) for number in (last, 0, columns, 1))
    return edit.call(_SLICE, source, *bounds, out)
