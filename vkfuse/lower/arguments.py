"""Operators that the runtime has, but not with these arguments: found in lowered files, kept off the delegate here."""

from typing import Any

import torch
from torch import fx

from vkfuse.lower.reason import Reason
from vkfuse.pte.rules import BINARY, GROUP_NORM, LAYER_NORM, POOL_SIZES, REDUCTIONS

_IMAGES = 4  # dimensions of [batch, channels, height, width]


def unfit_arguments(name: str, node: fx.Node) -> Reason | None:
    """What the runtime does not build or computes otherwise, None where it is fine.

    The codes are those of `vkfuse report`, which finds the same in a file; each rule is measured.
    """
    if name in BINARY:
        return _binary(name, node)
    if name in REDUCTIONS:
        return _reduction(node)
    if name in POOL_SIZES:
        return _pool(name, node)
    if name == LAYER_NORM and len(_given(node, 1)) != 1:
        return Reason(code="layer-norm-shape", detail="the runtime normalizes over the last dimension only")
    if name == GROUP_NORM and _rank(node.args[0]) != _IMAGES:
        return Reason(code="group-norm-shape", detail="the runtime normalizes images only")
    return None


def _binary(name: str, node: fx.Node) -> Reason | None:
    """BinaryOp.cpp."""
    if all(_rank(operand) == 0 for operand in node.args[:2]):
        return Reason(code="two-scalars", detail="neither operand has a dimension")
    if name == "aten.div.Tensor_mode" and node.kwargs.get("rounding_mode") != "floor":
        return Reason(code="other-arithmetic", detail="the runtime rounds every division down")
    if name == "aten.pow.Tensor_Tensor":
        return Reason(code="other-arithmetic", detail="the runtime has no powers of negative numbers")
    return None


def _reduction(node: fx.Node) -> Reason | None:
    """Reduce.cpp: one or two dimensions, not the batch of images, nor their channels in a batch."""
    shape = node.all_input_nodes[0].meta["val"].shape
    dimensions = [d % max(1, len(shape)) for d in _given(node, 1)]
    if not dimensions and len(shape) == 1:
        return None
    if len(dimensions) not in {1, 2}:
        return Reason(
            code="reduce-dims", detail=f"over {len(dimensions) or 'all'} dimensions, not one or two"
        )
    if len(shape) == _IMAGES and (0 in dimensions or (1 in dimensions and shape[0] != 1)):
        return Reason(code="reduce-dims", detail="over images of a batch")
    return None


def _pool(name: str, node: fx.Node) -> Reason | None:
    """utils/KernelUtils.cpp, make_ivec2_from_list."""
    given = [_given(node, position) for position in POOL_SIZES[name] if position < len(node.args)]
    if len(given) < 2 or any(len(sizes) != 2 for sizes in given):
        return Reason(
            code="pool-arguments", detail="the runtime wants a height and a width, of the stride too"
        )
    return None


def _given(node: fx.Node, position: int) -> list[Any]:
    """A list argument, empty where there is none."""
    value = node.args[position] if position < len(node.args) else None
    return list(value) if isinstance(value, (list, tuple)) else []


def _rank(value: object) -> int | None:
    """Dimensions of a node's tensor, 0 for a number."""
    if not isinstance(value, fx.Node):
        return 0
    tensor = value.meta.get("val")
    return tensor.ndim if isinstance(tensor, torch.Tensor) else None
