"""Choices of experts, and orders of tokens by expert: how chosen experts are told apart, and what of theirs is read."""

import operator
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import torch
from torch import fx

from vkfuse.rewrite.operands import operand, operands
from vkfuse.rewrite.repairs.experts.elements import elementwise
from vkfuse.rewrite.repairs.experts.known import (
    BY_PAIRS,
    Choice,
    Counts,
    Order,
    Places,
    Product,
    Rule,
    Spread,
    Value,
    Walk,
    Weights,
    shape_of,
)

aten = torch.ops.aten

_MATRICES: Final = 3  # [experts, N, K]
_ZEROS: Final = (aten.zeros_like.default, aten.zeros.default, aten.new_zeros.default)


def _topk(walk: Walk, node: fx.Node) -> Value | None:
    return Choice(places=BY_PAIRS) if node is walk.routing.topk else None


def _item(walk: Walk, node: fx.Node) -> Value | None:
    """One result of topk, of a sort or of a split."""
    source: fx.Node = node.args[0]  # type: ignore[assignment]
    value, at = walk.of(source), node.args[1]
    if source is walk.routing.topk:
        return value if at else Spread(dense=walk.routing.scores, places=BY_PAIRS)
    if isinstance(value, Choice):
        return Order(by=source) if at else value
    if isinstance(value, Spread):
        return replace(value, dense=walk.editor.call(operator.getitem, value.dense, at))
    return None


def _sort(walk: Walk, node: fx.Node) -> Value | None:
    """Tokens by expert."""
    value = walk.of(operand(node, "x"))
    if not isinstance(value, Choice) or value.places != Places(flat=True):
        return None
    return Choice(places=Places(flat=True, by=node))


def _count(walk: Walk, node: fx.Node) -> Value | None:
    """A histogram of experts."""
    ends = [walk.routing.experts, 0, walk.routing.experts - 1]
    given = [operand(node, name) for name in ("bins", "min", "max")]
    return Counts() if isinstance(walk.of(node.args[0]), Choice) and given == ends else None


def _summed(walk: Walk, node: fx.Node) -> Value | None:
    value = walk.of(node.args[0])
    return value if isinstance(value, Counts) and operand(node, "dim") == 0 else None


def _token(walk: Walk, node: fx.Node) -> Value | None:
    """Places of pairs, divided by the number of experts of a token."""
    value, divisor = walk.of(node.args[0]), operand(node, "other")
    mode = operands(node).get("rounding_mode", "floor")
    plain = isinstance(value, Order) and not value.back and not value.tokens
    if not plain:
        return elementwise(walk, node)
    return replace(value, tokens=True) if (divisor, mode) == (walk.routing.count, "floor") else None


def _blank(walk: Walk, node: fx.Node) -> Value | None:
    """Room for an order."""
    value = walk.of(node.args[0])
    return value if isinstance(value, Order) else None


def _inverse(walk: Walk, node: fx.Node) -> Value | None:
    """``inverse[order] = arange``."""
    order, value = walk.of(operand(node, "indices")[0]), operand(node, "values")
    counted = isinstance(value, fx.Node) and value.target == aten.arange.default
    plain = isinstance(order, Order) and not order.back and not order.tokens
    return replace(order, back=True) if plain and counted else None


def _indexed(walk: Walk, node: fx.Node) -> Value | None:
    """Rows in an order, tokens of places, what each chosen expert has."""
    indices = operand(node, "indices")
    if len(indices) != 1:
        return None
    source, by = walk.of(operand(node, "x")), walk.of(indices[0])
    match source, by:
        case fx.Node(), Choice(places=places):
            return _of_experts(walk, source, places)
        case fx.Node(), Order(by=sort, tokens=True):
            rows = walk.editor.call(aten.unsqueeze.default, source, 1)
            return Spread(dense=rows, places=Places(flat=True, by=sort))
        case ((Spread() | Product() | Choice()), Order(by=sort, back=back, tokens=False)):
            before, after = (
                Places(flat=True, by=sort if back else None),
                Places(flat=True, by=None if back else sort),
            )
            return replace(source, places=after) if source.places == before else None
    return None


def _of_experts(walk: Walk, source: fx.Node, places: Places) -> Value | None:
    """What experts have: `source` [experts, ...]."""
    value = source.meta["val"]
    if value.shape[0] != walk.routing.experts or not value.is_floating_point():
        return None
    if value.ndim == _MATRICES:
        return Weights(weight=source, places=places)
    return Spread(dense=walk.editor.call(aten.unsqueeze.default, source, 0), places=places)


def _gathered(walk: Walk, node: fx.Node) -> Value | None:
    """The chosen experts' scores, of those that were chosen by or of others."""
    source, choice = walk.of(node.args[0]), walk.of(operand(node, "index"))
    plain = isinstance(source, fx.Node) and isinstance(choice, Choice) and choice.places == BY_PAIRS
    routing = walk.routing
    if not plain or operand(node, "dim") not in {-1, 1} or shape_of(source) != shape_of(routing.scores):
        return None
    own = source is walk.editor.node(operand(routing.topk, "x"))
    return Spread(dense=routing.scores if own else source, places=BY_PAIRS)


def _scattered(walk: Walk, node: fx.Node) -> Value | None:
    """Scores of the chosen experts among zeros."""
    base, choice, value = (walk.of(node.args[at]) for at in (0, 2, 3))
    blank = (
        isinstance(base, fx.Node)
        and base.target in _ZEROS
        and shape_of(base) == shape_of(walk.routing.scores)
    )
    plain = (
        isinstance(value, Spread) and isinstance(choice, Choice) and value.places == choice.places == BY_PAIRS
    )
    if not blank or not plain or operand(node, "dim") not in {1, -1}:
        return None
    return walk.routing.only_chosen(walk.editor, value.dense)


CHOICES: Final[Mapping[Any, Rule]] = {
    aten.topk.default: _topk,
    operator.getitem: _item,
    aten.sort.default: _sort,
    aten.histc.default: _count,
    aten.cumsum.default: _summed,
    aten.floor_divide.default: _token,
    aten.div.Tensor_mode: _token,
    **dict.fromkeys((aten.empty_like.default, aten.zeros_like.default), _blank),
    aten.index_put.default: _inverse,
    aten.index.Tensor: _indexed,
    aten.gather.default: _gathered,
    aten.scatter.src: _scattered,
}
