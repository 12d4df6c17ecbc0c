"""Choices of experts, and orders of tokens by expert: how chosen experts are told apart, and what of theirs is read."""

import operator
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import torch
from torch import fx

from vkfuse.rewrite.operands import operand
from vkfuse.rewrite.repairs.experts.elements import elementwise
from vkfuse.rewrite.repairs.experts.groups import BLANKS
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
    is_tensor,
)

aten = torch.ops.aten

_MATRICES: Final = 3  # [experts, N, K]


def _topk(walk: Walk, node: fx.Node) -> Value | None:
    return Choice(places=BY_PAIRS) if node is walk.routing.topk else None


def _item(walk: Walk, node: fx.Node) -> Value | None:
    """One result of topk, of a sort or of a split."""
    source: Any = node.args[0]
    value, at = walk.of(source), int(node.args[1])  # type: ignore[arg-type]
    if source is walk.routing.topk:
        return value if at else Spread(dense=walk.routing.scores, places=BY_PAIRS)
    if isinstance(value, Choice):
        return Order(by=source) if at else value
    if isinstance(value, Spread):
        return replace(value, dense=value.dense[at])
    return None


def _sort(walk: Walk, node: fx.Node) -> Value | None:
    """Tokens by expert."""
    value = walk.of(operand(node, "x"))
    if not isinstance(value, Choice) or value.places != Places(flat=True):
        return None
    return Choice(places=Places(flat=True, by=node))


def _count(walk: Walk, node: fx.Node) -> Value | None:
    """A histogram of experts."""
    value, *given = walk.operands(node)
    ends = [walk.routing.experts, 0, walk.routing.experts - 1]
    return Counts() if isinstance(value, Choice) and given == ends else None


def _summed(walk: Walk, node: fx.Node) -> Value | None:
    value, dim, *_ = walk.operands(node)
    return value if isinstance(value, Counts) and dim == 0 else None


def _token(walk: Walk, node: fx.Node) -> Value | None:
    """Places of pairs, divided by the number of experts of a token."""
    value, divisor, *mode = walk.operands(node)
    plain = isinstance(value, Order) and not value.back and not value.tokens
    if not plain:
        return elementwise(walk, node)
    whole = divisor == walk.routing.count and mode in ([], ["floor"])
    return replace(value, tokens=True) if whole else None


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
        case _, Choice(places=places) if is_tensor(source):
            return _of_experts(walk, source, places)
        case _, Order(by=sort, tokens=True) if is_tensor(source):
            return Spread(dense=source.unsqueeze(1), places=Places(flat=True, by=sort))
        case ((Spread() | Product() | Choice()), Order(by=sort, back=back, tokens=False)):
            before, after = (
                Places(flat=True, by=sort if back else None),
                Places(flat=True, by=None if back else sort),
            )
            return replace(source, places=after) if source.places == before else None
    return None


def _of_experts(walk: Walk, source: torch.Tensor, places: Places) -> Value | None:
    """What experts have: `source` [experts, ...]."""
    if source.shape[0] != walk.routing.experts or not source.is_floating_point():
        return None
    if source.ndim == _MATRICES:
        return Weights(weight=source, places=places)
    return Spread(dense=source.unsqueeze(0), places=places)


def _gathered(walk: Walk, node: fx.Node) -> Value | None:
    """The chosen experts' scores, of those that were chosen by or of others."""
    source, dim, choice, *_ = walk.operands(node)
    routing, plain = walk.routing, isinstance(choice, Choice) and choice.places == BY_PAIRS
    if not plain or not is_tensor(source) or dim not in {-1, 1} or source.shape != routing.scores.shape:
        return None
    own = source.node is walk.editor.node(operand(routing.topk, "x"))
    return Spread(dense=routing.scores if own else source, places=BY_PAIRS)


def _scattered(walk: Walk, node: fx.Node) -> Value | None:
    """Scores of the chosen experts among zeros."""
    base, dim, choice, value = walk.operands(node)
    blank = is_tensor(base) and base.node.target in BLANKS and base.shape == walk.routing.scores.shape
    plain = (
        isinstance(value, Spread) and isinstance(choice, Choice) and value.places == choice.places == BY_PAIRS
    )
    return walk.routing.only_chosen(value.dense) if blank and plain and dim in {1, -1} else None


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
