"""Tensors of chosen experts whose elements are computed each by itself, or laid out otherwise."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import torch
from torch import fx

from vkfuse.rewrite.operands import operand
from vkfuse.rewrite.repairs.experts.known import (
    BY_PAIRS,
    DIMENSION,
    Choice,
    Counts,
    Order,
    Places,
    Product,
    Rule,
    Spread,
    Value,
    Walk,
    is_tensor,
    moved,
    shape_of,
)

aten = torch.ops.aten

_ON_ELEMENTS: Final = (
    *(
        getattr(aten, name).default
        for name in ("silu", "gelu", "sigmoid", "tanh", "relu", "exp", "neg", "clamp")
    ),
    *(
        getattr(aten, name).default
        for name in ("minimum", "maximum", "clone", "alias", "detach", "square", "hardtanh")
    ),
    *(getattr(aten, name).Scalar for name in ("add", "sub", "mul", "div")),
    aten.sub.Tensor,
    aten.div.Tensor,
)


def _copied(walk: Walk, node: fx.Node) -> Value | None:
    """The same, or another type, which orders and counts need not have."""
    value, dtype = walk.of(operand(node, "x")), node.meta["val"].dtype
    match value:
        case Choice() | Counts() | Order():
            return value
        case Product(x=x):
            return value if x.dtype == dtype else None
        case Spread(dense=dense):
            return replace(value, dense=dense.to(dtype))
    return None


def _viewed(walk: Walk, node: fx.Node) -> Value | None:
    """Pairs laid out flat, or back; or other dimensions behind them."""
    source = operand(node, "x")
    value = walk.of(source)
    if not isinstance(value, (Spread, Product, Choice)) or value.places.by is not None:
        return None
    before, after = shape_of(source), shape_of(node)
    behind = before[value.places.leading :]
    for places in (Places(flat=True), BY_PAIRS):
        if after[places.leading :] == behind and _leads(walk, after, places):
            return replace(value, places=places)
    if isinstance(value, Spread) and str(after[:1]) == str(before[:1]) and value.places.flat:
        leading = [size if isinstance(size, int) else -1 for size in value.dense.shape[:2]]
        return replace(value, dense=value.dense.reshape([*leading, *after[1:]]))
    return None


def _leads(walk: Walk, shape: torch.Size, places: Places) -> bool:
    """Whether a shape can begin as `places` does."""
    return len(shape) >= places.leading and (places.flat or shape[1] == walk.routing.count)


def _shaped(walk: Walk, node: fx.Node) -> Value | None:
    """A change of dimensions behind the pairs; of a product that a dimension of one is taken off."""
    x = operand(node, "x")
    value, rank = walk.of(x), len(shape_of(x))
    if not isinstance(value, Product):
        return moved(walk, node, value) if isinstance(value, Spread) else None
    if node.target != aten.squeeze.dim or value.ones is None:
        return None
    return replace(value, ones=None) if operand(node, "dim") % rank - rank == value.ones else None


def elementwise(walk: Walk, node: fx.Node) -> Value | None:
    """An operator that computes each element by itself."""
    operands = [walk.of(given) for given in node.args]
    spread = [value for value in operands if isinstance(value, Spread)]
    places = {value.places for value in spread}
    fits = all(
        isinstance(value, (Spread, int, float, type(None)))
        or (is_tensor(value) and len(places) == 1 and _stands_beside(value.shape, node, spread[0].places))
        for value in operands
    )
    ranks = {len(shape_of(given)) for given in node.args if isinstance(walk.of(given), Spread)}  # type: ignore[arg-type]
    if len(places) != 1 or not fits or ranks != {len(shape_of(node))}:
        return None
    dense = [value.dense if isinstance(value, Spread) else value for value in operands]
    return replace(spread[0], dense=walk.editor.tensor(walk.editor.call(node.target, *dense, **node.kwargs)))


def _power(walk: Walk, node: fx.Node) -> Value | None:
    """A whole power: others need not be numbers for an expert that is not chosen."""
    exponent = operand(node, "exponent")
    return elementwise(walk, node) if exponent >= 0 and exponent == int(exponent) else None


def _stands_beside(shape: torch.Size, node: fx.Node, places: Places) -> bool:
    """Whether a tensor of a shape is the same for all experts of a token."""
    rank = len(shape_of(node))
    return len(shape) <= rank - places.leading or (not places.flat and len(shape) == rank and shape[1] == 1)


def _softmax(walk: Walk, node: fx.Node) -> Value | None:
    """Over the chosen experts of a token, or behind the pairs."""
    value, dim, dtype = walk.operands(node)
    rank = len(shape_of(node))
    if not isinstance(value, Spread) or value.places != BY_PAIRS:
        return None
    if dim % rank != 1:
        return moved(walk, node, value)
    return replace(value, dense=walk.routing.softmax(value.dense, dtype)) if rank == 2 else None


ELEMENTS: Final[Mapping[Any, Rule]] = {
    **dict.fromkeys((aten._to_copy.default, aten.type_as.default), _copied),  # noqa: SLF001 - the operator's name
    **dict.fromkeys((aten.view.default, aten.reshape.default), _viewed),
    **dict.fromkeys(_ON_ELEMENTS, elementwise),
    **dict.fromkeys(DIMENSION, _shaped),
    aten.pow.Tensor_Scalar: _power,
    aten.softmax.int: _softmax,
}
