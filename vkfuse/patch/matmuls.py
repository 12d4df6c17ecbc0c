"""Calls of a fused matmul in a Vulkan graph, by 4 bits a weight or by whole bytes, in place of a product with floats.

Batches are multiplied as rows; inputs that were padded to fours or eights, or to a tied lookup's 32, get zeros behind them,
outputs are sliced. Source: Q4gswLinear.cpp, QuantizedLinear.cpp, Pad.cpp, Slice.cpp of backends/vulkan in ExecuTorch 1.5.
"""

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Final

import numpy as np

from vkfuse.measure.tables import FloatMatmul
from vkfuse.patch.flat import is_batch, sizes_back
from vkfuse.patch.graphs import GraphEdit
from vkfuse.patch.lookups import FLOATS
from vkfuse.pte.enums import ScalarType
from vkfuse.pte.values import Int
from vkfuse.pte.vulkan import IntList, OperatorCall, VkTensor, VulkanGraph
from vkfuse.runtime.codes import Code
from vkfuse.runtime.operators.linear import FUSED, FUSED_BYTES
from vkfuse.runtime.operators.moves import PAD, SLICE, VIEW
from vkfuse.runtime.spelling import BY_WIDTH
from vkfuse.tables.decisions import Refusal
from vkfuse.tables.floats import numbers
from vkfuse.tables.q4 import Q4Pack, linear_scales
from vkfuse.tables.q8 import Q8Pack

_KINDS: Final = {dtype: kind for kind, dtype in FLOATS.items()}


def activations(graph: VulkanGraph, read: FloatMatmul) -> ScalarType | None:
    """The type of a product's other operand, None for one that no fused matmul takes."""
    source, out = graph.values[read.source], graph.values[read.output]
    if not isinstance(source, VkTensor) or not isinstance(out, VkTensor) or source.dtype is not out.dtype:
        return None
    return _KINDS.get(source.dtype)


def matmul_misfit(
    graph: VulkanGraph, read: FloatMatmul, pack: Q4Pack | Q8Pack, *, dynamic: bool
) -> Refusal | None:
    """Return why a product cannot read a pack, None where it can."""
    source, out = graph.values[read.source], graph.values[read.output]
    if not is_batch(source) or not is_batch(out) or out.dims != (*source.dims[:-1], pack.rows):
        return Refusal(code="call-not-understood", detail="a product of other sizes than its operands")
    if source.storage is not out.storage or {source.layout, out.layout} - BY_WIDTH:
        return Refusal(code="call-not-understood", detail="input and result are stored in different ways")
    if _batched(source) and sizes_back(out.dims, dynamic=dynamic) is None:
        return Refusal(code=Code.LINEAR_INPUT_BATCHED, detail=f"a dynamic batch {list(source.dims)}")
    bias = None if read.bias is None else graph.values[read.bias]
    if isinstance(bias, VkTensor) and (
        bias.dims != (pack.rows,) or bias.dtype is not out.dtype or bias.data is None
    ):
        return Refusal(code="bias-not-constant", detail="the bias is no vector of the product's type")
    return None


def _batched(source: VkTensor) -> bool:
    """Whether the runtime reads only a part of an input, or gives its result other sizes (resize_q4gsw_linear_node)."""
    return len(source.dims) not in {2, 3} or prod(source.dims[:-2]) != 1


def matmul_calls(
    edit: GraphEdit, pack: Q4Pack | Q8Pack, read: FloatMatmul, *, dynamic: bool
) -> list[OperatorCall]:
    """The calls that multiply by a pack. TypeError for a product that does not fit it, which the survey let pass."""
    out, steps = edit.tensor_at(read.output), _Steps(edit, read.source)
    back = sizes_back(out.dims, dynamic=dynamic)
    if _batched(steps.last):
        view = edit.value(IntList((-1, pack.columns)))
        steps.then(VIEW, (view,), (prod(steps.last.dims[:-1]), pack.columns))
    if pack.padded_columns != pack.columns:
        behind = edit.value(IntList((0, pack.padded_columns - pack.columns)))
        steps.then(PAD, (behind, edit.value(Int(0))), (*steps.last.dims[:-1], pack.padded_columns))
    name, constants = _fused(edit, pack, _KINDS[out.dtype])
    bias = _bias(edit, pack, read)
    steps.then(name, (*constants, bias), (*steps.last.dims[:-1], pack.padded_rows))
    if pack.padded_rows != pack.rows:
        bounds = [edit.value(Int(number)) for number in (len(steps.last.dims) - 1, 0, pack.rows, 1)]
        steps.then(SLICE, bounds, (*steps.last.dims[:-1], pack.rows))
    if back is not None and steps.last.dims != out.dims:
        steps.then(VIEW, (edit.value(IntList(back)),), out.dims)
    return steps.ending_in(read.output)


def _fused(edit: GraphEdit, pack: Q4Pack | Q8Pack, kind: ScalarType) -> tuple[str, tuple[int, ...]]:
    """The operator that multiplies by a pack, and its arguments between input and bias."""
    if isinstance(pack, Q8Pack):
        return FUSED_BYTES, (edit.constant(pack.values), edit.constant(pack.scales))
    scales = edit.constant(linear_scales(pack, kind))
    return FUSED, (edit.constant(pack.packed), scales, edit.value(Int(pack.group_size)))


class _Steps:
    """Calls each of which reads what the one before it wrote."""

    def __init__(self, edit: GraphEdit, source: int) -> None:
        self._edit, self._at = edit, source
        self._calls: list[OperatorCall] = []

    @property
    def last(self) -> VkTensor:
        """The tensor that was written last."""
        return self._edit.tensor_at(self._at)

    def then(self, name: str, arguments: Sequence[int], dims: tuple[int, ...]) -> None:
        """Add a call, whose result is like its input but for the sizes."""
        out = self._edit.tensor(self.last, dims=dims)
        self._calls.append(self._edit.call(name, self._at, *arguments, out))
        self._at = out

    def ending_in(self, output: int) -> list[OperatorCall]:
        """The calls, the last of which writes `output`."""
        *first, last = self._calls
        return [*first, replace(last, args=(*last.args[:-1], output))]


def _bias(edit: GraphEdit, pack: Q4Pack | Q8Pack, read: FloatMatmul) -> int:
    """The bias of a product, as long as the rows that are stored."""
    bias = None if read.bias is None else edit.at(read.bias)
    if not isinstance(bias, VkTensor) or bias.data is None or read.bias is None:
        return edit.value(None)
    stored = numbers(bias.data, _KINDS[bias.dtype], bias.dims)
    if pack.padded_rows == pack.rows or stored is None:
        return read.bias
    return edit.constant(np.pad(stored.stored, (0, pack.padded_rows - pack.rows)))
