"""How low the values of an expression can be, from what it is chosen and added up from."""

import math

import torch
from torch import fx

from vkfuse.rewrite.constants import Constants
from vkfuse.rewrite.moves import MOVES

aten = torch.ops.aten

# The arguments from which an operator takes every value of its result.
_TAKEN_FROM = {
    **dict.fromkeys((*MOVES, aten.alias.default, aten.embedding.default), (0,)),
    aten.scalar_tensor.default: (0,),
    aten.full.default: (1,),
    aten.where.self: (1, 2),
    aten.where.Scalar: (1, 2),
    aten.where.ScalarOther: (1, 2),
    aten.where.ScalarSelf: (1, 2),
    aten.masked_fill.Scalar: (0, 2),
    aten.masked_fill.Tensor: (0, 2),
}


def lower_bound(value: object, constants: Constants) -> float:
    """No element of `value`, a float tensor's node or a number, is below this; -inf where nothing is known."""
    if isinstance(value, (int, float)):
        return float(value)
    if not isinstance(value, fx.Node):
        return -math.inf
    if value in constants:
        return _lowest(constants.value(value))
    if value.target in _TAKEN_FROM:
        return min(lower_bound(value.args[at], constants) for at in _TAKEN_FROM[value.target])
    if value.target == aten._to_copy.default and _is_bool(value.args[0]):  # noqa: SLF001 - the operator's name
        return 0.0
    compute = _COMPUTED.get(value.target)  # type: ignore[call-overload] # no other target is a key
    return compute(value, constants) if compute is not None and not value.kwargs else -math.inf


_FINITE = {
    *(aten.linear.default, aten.matmul.default, aten.mm.default, aten.addmm.default, aten.bmm.default),
    *(aten.conv1d.default, aten.conv2d.default, aten.conv2d.padding, aten.convolution.default),
    *(aten.layer_norm.default, aten.embedding.default, aten.clamp.default),
}


def may_be_masked(node: fx.Node, constants: Constants) -> bool:
    """Whether minus infinity can come into `node`: from an input, a constant or a logarithm, not from products."""
    left, seen = [node], {node}
    while left:
        at = left.pop()
        value = at.meta.get("val")
        if not isinstance(value, torch.Tensor) or not value.is_floating_point() or at.target in _FINITE:
            continue
        if at in constants:
            if _lowest(constants.value(at)) == -math.inf:
                return True
        elif at.op == "placeholder" or at.target is aten.log.default or -math.inf in at.args:
            return True
        else:
            left += [source for source in at.all_input_nodes if source not in seen]
            seen.update(left)
    return False


def _is_bool(value: object) -> bool:
    return isinstance(value, fx.Node) and value.meta["val"].dtype == torch.bool


def _lowest(tensor: torch.Tensor) -> float:
    return float(tensor.min()) if tensor.numel() and not tensor.isnan().any() else -math.inf


def _sum(node: fx.Node, constants: Constants) -> float:
    """Rounded as the program's own addition."""
    bounds = [lower_bound(term, constants) for term in node.args[:2]]
    return float(torch.tensor(bounds, dtype=node.meta["val"].dtype).sum())


def _difference(node: fx.Node, constants: Constants) -> float:
    """Of a tensor and a number."""
    taken = node.args[1]
    if not isinstance(taken, (int, float)):
        return -math.inf
    return _rounded(lower_bound(node.args[0], constants) - taken, node)


def _multiple(node: fx.Node, constants: Constants) -> float:
    """Of a tensor by a positive number."""
    factor = node.args[1]
    if not isinstance(factor, (int, float)) or factor <= 0:
        return -math.inf
    return _rounded(lower_bound(node.args[0], constants) * factor, node)


def _rounded(value: float, node: fx.Node) -> float:
    return float(torch.tensor(value, dtype=node.meta["val"].dtype))


_COMPUTED = {aten.add.Tensor: _sum, aten.sub.Tensor: _difference, aten.mul.Tensor: _multiple}
