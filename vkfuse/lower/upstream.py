"""What ExecuTorch 1.5's Vulkan lowering gets wrong in itself, mended while vkfuse lowers and put back afterwards."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import executorch.backends.vulkan.op_registry as vulkan_registry
import executorch.backends.vulkan.utils as vulkan_utils
import torch
from executorch.backends.transforms.fuse_view_copy import FuseViewCopyTransform
from executorch.backends.vulkan._passes.squeeze_unsqueeze_inputs import SqueezeUnsqueezeInputs
from executorch.backends.vulkan.serialization.vulkan_graph_builder import VkGraphBuilder
from executorch.backends.vulkan.serialization.vulkan_graph_schema import Bool, Double, Int, VkValue
from executorch.exir.dialects._ops import ops as edge_ops
from executorch.exir.pass_base import ExportPass
from torch import fx
from torch.utils._sympy.value_ranges import bound_sympy

from vkfuse.program.guards import unguarded_convolutions


@contextmanager
def mended_upstream() -> Iterator[None]:
    """Apply every mend together."""
    registry, lookup = vulkan_registry.vulkan_supported_ops, edge_ops.edge.aten.embedding.default
    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(vulkan_utils, "extents_are_valid", _within))
        stack.enter_context(mock.patch.object(vulkan_utils, "within_buffer_limit", _elements_within))
        stack.enter_context(mock.patch.object(VkGraphBuilder, "get_or_create_scalar_value", _scalar_by_type))
        stack.enter_context(mock.patch.dict(registry, {lookup: _lookup(registry[lookup])}))
        stack.enter_context(mock.patch.object(FuseViewCopyTransform, "_find_view_copy_chain", _views_to_fuse))
        stack.enter_context(mock.patch.object(SqueezeUnsqueezeInputs, "call_operator", _call_squeezed))
        stack.enter_context(unguarded_convolutions())
        yield


def _views_to_fuse(fuse: FuseViewCopyTransform, start: fx.Node, operators: list[Any]) -> list[fx.Node]:
    """The views that `start` may take the place of: up to the last whose sizes are known where `start` stands."""
    views: list[fx.Node] = _find_view_copy_chain(fuse, start, operators)
    while views and not all(size < start for size in views[-1].all_input_nodes[1:]):
        views.pop()
    return views


_find_view_copy_chain = FuseViewCopyTransform._find_view_copy_chain  # noqa: SLF001 - what is mended


def _call_squeezed(squeeze: SqueezeUnsqueezeInputs, operator: Any, args: Any, kwargs: Any, meta: Any) -> Any:
    """Call `operator`, relu and gelu between squeezes where the sizes are numbers, and no view is given its arguments."""
    sizes = meta["val"].shape if operator in _SQUEEZABLE else ()
    if kwargs or any(isinstance(size, torch.SymInt) for size in sizes):
        return ExportPass.call_operator(squeeze, operator, args, kwargs, meta)
    return _squeezed(squeeze, operator, args, kwargs, meta)


_squeezed = SqueezeUnsqueezeInputs.call_operator
_SQUEEZABLE = SqueezeUnsqueezeInputs._squeezable_ops  # noqa: SLF001 - what is mended


def _within(extents: Sequence[Any], limits: Sequence[int]) -> bool:
    """Whether extents fit at their largest."""
    return all(_largest(extent) <= limit for extent, limit in zip(extents, limits, strict=True))


def _largest(size: Any) -> Any:
    """The upper bound of a size; to compare the symbol itself would narrow what the program takes to its example.

    A symbol without a bound is returned as it is: such a guard is what bounds it.
    """
    if not isinstance(size, torch.SymInt):
        return size
    largest = bound_sympy(size.node.expr, size.node.shape_env.var_to_range).upper
    return int(largest) if largest.is_Integer else size


def _elements_within(node: fx.Node, limit: int) -> bool:
    """Whether each tensor that `node` computes stays below `limit` elements."""
    value = node.meta["val"]
    tensors = value if isinstance(value, (list, tuple)) else (value,)
    return all(_largest(tensor.numel()) < limit for tensor in tensors)


def _scalar_by_type(builder: VkGraphBuilder, scalar: bool | float) -> int:
    """The value of a number, one for each type: to a dictionary 0 and 0.0 are the same."""
    known: dict[Any, int] = builder.const_scalar_to_value_ids
    key = (type(scalar), scalar)
    if key not in known:
        known[key] = len(builder.values)
        builder.values.append(VkValue(_SCALARS[type(scalar)](scalar)))
    return known[key]


_SCALARS = {bool: Bool, int: Int, float: Double}


def _lookup(entry: Any) -> Any:
    """The entry of a float lookup whose rows lie in the order of their columns: its shader reads four at a time."""
    ordered = copy.copy(entry)
    contiguous = vulkan_utils.CONTIGUOUS_ANY
    ordered.inputs_storage = vulkan_utils.TensorRepSetList([vulkan_utils.NO_STORAGE, contiguous])
    ordered.outputs_storage = vulkan_utils.TensorRepSetList(contiguous)
    return ordered
