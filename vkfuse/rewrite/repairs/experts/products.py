"""Products of tokens with the matrices of their experts, weighted and summed."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import torch
from torch import fx

from vkfuse.rewrite.operands import operand
from vkfuse.rewrite.repairs.experts.elements import elementwise
from vkfuse.rewrite.repairs.experts.known import (
    BY_PAIRS,
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
    shape_of,
)

aten = torch.ops.aten

# By name: the second is known to torch only where transformers is.
GROUPED: Final = ("aten._grouped_mm.default", "transformers.grouped_mm_fallback.default")


def _turned(walk: Walk, node: fx.Node) -> Value | None:
    """Matrices the other way round."""
    value, *dims = walk.operands(node)
    rank = node.meta["val"].ndim
    last = {d % rank for d in dims} == {rank - 1, rank - 2}
    return replace(value, swapped=not value.swapped) if isinstance(value, Weights) and last else None


def _multiplied(walk: Walk, node: fx.Node) -> Value | None:
    """A product weighted by expert, or an operator on elements."""
    first, second = walk.operands(node)
    product, weight = (first, second) if isinstance(first, Product) else (second, first)
    if not isinstance(product, Product):
        return elementwise(walk, node)
    one = isinstance(weight, Spread) and weight.places == product.places and product.ones is None
    return _weighted(product, weight.dense) if one and weight.dense.shape[2:] == (1,) else None


def _weighted(product: Product, weight: torch.Tensor) -> Product:
    """`product` times `weight` [T, experts, 1]."""
    more = None if product.more is None else product.more * weight
    return replace(product, x=product.x * weight, more=more)


def _added(walk: Walk, node: fx.Node) -> Value | None:
    """A product and what each expert adds to it, or an operator on elements."""
    first, second, _ = walk.operands(node)
    product, more = (first, second) if isinstance(first, Product) else (second, first)
    if not isinstance(product, Product):
        return elementwise(walk, node)
    fits = isinstance(more, Spread) and more.places == product.places and not node.kwargs
    if not fits or product.ones is not None or product.more is not None:
        return None
    return replace(product, more=more.dense)


def _sum(walk: Walk, node: fx.Node) -> Value | None:
    """Over the chosen experts of each token."""
    value, dims, keep, _ = walk.operands(node)
    rank = len(shape_of(operand(node, "x")))
    summed = isinstance(value, (Spread, Product)) and value.places == BY_PAIRS
    return _over_experts(walk, value, keep=keep) if summed and [d % rank for d in dims] == [1] else None


def _over_experts(walk: Walk, value: Spread | Product, *, keep: bool = False) -> torch.Tensor | None:
    """The sum of `value` over the chosen experts of each token."""
    chosen = walk.routing.only_chosen
    if isinstance(value, Spread):
        return chosen(value.dense).sum([1], keep)
    if keep or value.ones is not None:
        return None
    experts, outputs, inputs = value.weight.shape
    x = chosen(value.x).reshape([-1, experts * inputs])
    beside = value.weight.permute([1, 0, 2]).reshape([outputs, experts * inputs])
    total: torch.Tensor = aten.linear.default(x, beside)
    return total if value.more is None else total + chosen(value.more).sum([1])


def _product(walk: Walk, x: Any, weight: torch.Tensor, places: Places) -> Spread | Product | None:
    """`x` [T, 1 or experts, K] by `weight` [experts, N, K]."""
    if not isinstance(x, Spread) or x.places != places:
        return None
    walk.multiplied = True
    experts, outputs, inputs = weight.shape
    if x.dense.shape[1] != 1:
        return Product(x=x.dense, weight=weight, places=places)
    rows, table = x.dense.reshape([-1, inputs]), weight.reshape([experts * outputs, inputs])
    return replace(x, dense=aten.linear.default(rows, table).reshape([-1, experts, outputs]))


def _matmul(walk: Walk, node: fx.Node) -> Value | None:
    """Each pair's matrix by its vector, on either side."""
    first, second = walk.operands(node)
    if isinstance(first, Weights):
        weights, x, ones = first, second, -1
    elif isinstance(second, Weights):
        weights, x, ones = replace(second, swapped=not second.swapped), first, -2
    else:
        return None
    if not isinstance(x, Spread) or x.dense.shape[ones] != 1 or x.dense.ndim != 4:
        return None
    vectors = replace(x, dense=x.dense.squeeze(ones))
    product = _product(walk, vectors, _by_outputs(weights), weights.places)
    if isinstance(product, Spread):
        return replace(product, dense=product.dense.unsqueeze(ones))
    return None if product is None else replace(product, ones=ones)


def _by_outputs(weights: Weights) -> torch.Tensor:
    """A matrix [N, K] for each expert."""
    return weights.weight.transpose(1, 2) if weights.swapped else weights.weight


def _grouped(walk: Walk, node: fx.Node) -> Value | None:
    """Rows sorted by expert, each expert's by its matrix [K, N]."""
    x, weight, ends = (walk.of(given) for given in node.args[:3])
    if not isinstance(ends, Counts) or not isinstance(x, Spread) or not is_tensor(weight):
        return None
    return _product(walk, x, weight.transpose(1, 2), x.places) if x.places.by is not None else None


def _einsum(walk: Walk, node: fx.Node) -> Value | None:
    """Each pair's vector by its matrix, or a weighted sum over the experts of each token."""
    sides, _, result = str(operand(node, "equation")).replace(" ", "").partition("->")
    terms = [*zip(sides.split(","), map(walk.of, operand(node, "tensors")), strict=True)]
    if len(terms) != 2:
        return None
    for (one, x), (other, y) in (terms, terms[::-1]):
        if isinstance(y, Weights):
            return _contracted(walk, x, one, y, other, result)
        if isinstance(y, Spread) and isinstance(x, (Spread, Product)) and other == one[:2] and len(one) == 3:
            return _weighted_sum(walk, x, y) if result == one[0] + one[2:] and x.places == BY_PAIRS else None
    return None


def _contracted(walk: Walk, x: Any, one: str, weights: Weights, other: str, result: str) -> Value | None:
    """``ti,taio->tao`` and its like."""
    pair, outer, inner = other[:-2], other[-2], other[-1]
    inputs = one[-1:]
    outputs = outer if inputs == inner else inner
    if len(pair) != weights.places.leading or inputs not in {inner, outer} or result != pair + outputs:
        return None
    if is_tensor(x) and one == pair[:1] + inputs and not weights.places.flat:
        x = Spread(dense=x.unsqueeze(1), places=weights.places)
    elif one != pair + inputs:
        return None
    turned = replace(weights, swapped=weights.swapped != (inputs == outer))
    return _product(walk, x, _by_outputs(turned), weights.places)


def _weighted_sum(walk: Walk, value: Spread | Product, weight: Spread) -> torch.Tensor | None:
    """The sum over the experts of each token of `value` [T, k, N] times `weight` [T, k]."""
    factor = weight.dense.unsqueeze(-1)
    if isinstance(value, Product):
        return _over_experts(walk, _weighted(value, factor)) if value.ones is None else None
    return _over_experts(walk, replace(value, dense=value.dense * factor))


def _index_added(walk: Walk, node: fx.Node) -> Value | None:
    """Rows of pairs added to their tokens'."""
    base, dim, order, value, _ = walk.operands(node)
    tokens = isinstance(order, Order) and order.tokens and dim == 0 and not node.kwargs
    if not tokens or not is_tensor(base) or not isinstance(value, (Spread, Product)):
        return None
    total = _over_experts(walk, value) if value.places == Places(flat=True, by=order.by) else None
    return None if total is None else base + total


PRODUCTS: Final[Mapping[Any, Rule]] = {
    aten.transpose.int: _turned,
    aten.mul.Tensor: _multiplied,
    aten.add.Tensor: _added,
    aten.sum.dim_IntList: _sum,
    **dict.fromkeys((aten.bmm.default, aten.matmul.default), _matmul),
    **dict.fromkeys(GROUPED, _grouped),
    aten.einsum.default: _einsum,
    aten.index_add.default: _index_added,
}
