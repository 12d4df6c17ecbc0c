"""Which nodes of an edge graph stay on the CPU, and why: what the partitioner promises and the runtime has not.

Each rule is measured against ExecuTorch's Vulkan runtime; the code of a reason is stable.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import fx

from vkfuse.lower.arguments import unfit_arguments
from vkfuse.lower.reason import Reason

MAX_DIMENSIONS = 4  # runtime/api/containers/Tensor.cpp: at most four dimensions

# Operators that have shaders for integer and bool tensors, or only carry them to an operator that does.
_INTEGER_OPERATORS = frozenset(
    {
        "aten.sym_size.int",
        "aten.view_copy.default",
        "aten.unsqueeze_copy.default",
        "aten.squeeze_copy.dims",
        "aten.where.self",
        "aten.embedding.default",
        "aten.index_select.default",
        "aten.index.Tensor",
        "aten.argmax.default",
        "aten.argmin.default",
        "et_vk.embedding_q4gsw.default",
        "et_vk.linear_q4gsw.default",
        "et_vk.linear_dq8ca_q4gsw.default",
        "torchao.choose_qparams_affine.default",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the target's runtime has, and what is kept off for other reasons, by operator or by method and node."""

    operators: frozenset[str]
    kept_off: Mapping[str, Reason] = field(default_factory=dict)
    nodes: Mapping[tuple[str, str], Reason] = field(default_factory=dict)


Rule = Callable[[fx.Node, Limits], Reason | None]


def operator_name(node: fx.Node) -> str:
    """The name that the runtime registers, ``aten.add.Tensor``; symbolic arithmetic by its Python name."""
    target = node.target
    if not isinstance(target, torch._ops.OpOverload):  # noqa: SLF001 - torch names the class nowhere else
        target = getattr(target, "_op", target)  # an edge operator wraps its ATen operator
    if isinstance(target, torch._ops.OpOverload):  # noqa: SLF001 - torch names the class nowhere else
        return str(target)
    return getattr(target, "__name__", str(target))


def _asked_for(node: fx.Node, limits: Limits) -> Reason | None:
    return limits.kept_off.get(operator_name(node))


def _not_registered(node: fx.Node, limits: Limits) -> Reason | None:
    """backends/vulkan/runtime/graph/ops/OperatorRegistry.h: a missing operator aborts the load."""
    name = operator_name(node)
    if (
        name in limits.operators
        or not tensors_of(node)
        or name == "getitem"
        or name in _LOWERED_BEFORE_THE_RUNTIME
    ):
        return None
    return Reason(code="not-in-runtime", detail=f"the runtime has no {name}")


# Renamed or fused by the backend's own passes before the runtime sees them.
_LOWERED_BEFORE_THE_RUNTIME = frozenset(
    {
        "aten.sym_size.int",
        "aten.t_copy.default",
        "aten.clone.default",
        "dim_order_ops._clone_dim_order.default",
        "dim_order_ops._to_dim_order_copy.default",
        "aten.alias_copy.default",
        "aten.detach_copy.default",
        "aten.lift_fresh_copy.default",
        "aten.copy.default",
    }
)


def _integer_arithmetic(node: fx.Node, limits: Limits) -> Reason | None:
    """Most shaders on integer and bool tensors do not exist (view_convert_buffer_int_uint8, binary_eq_texture3d_int32)."""
    del limits
    if operator_name(node) in _INTEGER_OPERATORS or operator_name(node) == "getitem":
        return None
    kinds = {str(t.dtype).removeprefix("torch.") for t in tensors_of(node) if not t.dtype.is_floating_point}
    if not kinds:
        return None
    return Reason(
        code="integer-arithmetic", detail=f"no shader for {operator_name(node)} on {', '.join(sorted(kinds))}"
    )


def _too_many_dimensions(node: fx.Node, limits: Limits) -> Reason | None:
    """A tensor of more than four dimensions fails at run time."""
    del limits
    most = max((t.ndim for t in tensors_of(node)), default=0)
    if most <= MAX_DIMENSIONS:
        return None
    return Reason(code="more-than-4-dimensions", detail=f"a tensor of {most} dimensions")


def _empty(node: fx.Node, limits: Limits) -> Reason | None:
    """A dispatch over no elements is invalid in Vulkan."""
    del limits
    if any(s == 0 for t in tensors_of(node) for s in t.shape if isinstance(s, int)):
        return Reason(code="empty-tensor", detail="a tensor without elements")
    return None


def _changes_nothing(node: fx.Node) -> bool:
    """An expansion to the size that the tensor has: the backend removes it."""
    shapes = [tuple(t.shape) for t in tensors_of(node)]
    return operator_name(node) == "aten.expand_copy.default" and len({str(s) for s in shapes}) == 1


# Operators that keep their largest size: their dispatch has no resize function in runtime/graph/ops/impl.
_FIXED_SIZE = frozenset(
    {
        "aten.expand_copy.default",
        "aten.flip.default",
        "aten.full.default",
        "aten.full_like.default",
        "aten.index_select.default",
        "aten.native_group_norm.default",
        "aten.ones.default",
        "aten.ones_like.default",
        "aten.repeat.default",
        "aten.split_with_sizes_copy.default",
        "aten.upsample_bilinear2d.vec",
        "aten.upsample_nearest2d.vec",
        "aten.zeros.default",
        "aten.zeros_like.default",
    }
)


def _keeps_its_size(node: fx.Node, limits: Limits) -> Reason | None:
    """An operator that is not resized computes at the largest size of a dynamic dimension, whatever the input."""
    del limits
    if operator_name(node) not in _FIXED_SIZE or _changes_nothing(node):
        return None
    if any(not isinstance(size, int) for tensor in tensors_of(node) for size in tensor.shape):
        return Reason(code="no-resize", detail=f"the runtime does not resize {operator_name(node)}")
    return None


def _changes_order(node: fx.Node, limits: Limits) -> Reason | None:
    """A delegate knows no order of dimensions but the default one: a copy into another, or out of it, is none there."""
    del limits
    orders = (
        {tuple(t.dim_order()) for t in tensors_of(node)} if operator_name(node) in _ORDERED_COPIES else set()
    )
    if len(orders) <= 1:
        return None
    return Reason(code="order-of-dimensions", detail="a copy that changes the order of dimensions")


_ORDERED_COPIES = ("dim_order_ops._clone_dim_order.default", "dim_order_ops._to_dim_order_copy.default")


def _unfit_arguments(node: fx.Node, limits: Limits) -> Reason | None:
    del limits
    return unfit_arguments(operator_name(node), node)


RULES: tuple[Rule, ...] = (
    _asked_for,
    _not_registered,
    _integer_arithmetic,
    _too_many_dimensions,
    _empty,
    _keeps_its_size,
    _changes_order,
    _unfit_arguments,
)


def why_not(node: fx.Node, limits: Limits) -> Reason | None:
    """The first reason to keep `node` on the CPU, None where it may be delegated."""
    if node.op != "call_function":
        return None
    return next((reason for rule in RULES if (reason := rule(node, limits)) is not None), None)


def tensors_of(node: fx.Node) -> list[torch.Tensor]:
    """The fake tensors that `node` reads and computes; constants' integer packs are no operands of arithmetic."""
    values = [i.meta.get("val") for i in node.all_input_nodes] + [node.meta.get("val")]
    flat = [v for value in values for v in (value if isinstance(value, (tuple, list)) else (value,))]
    return [v for v in flat if isinstance(v, torch.Tensor)]
