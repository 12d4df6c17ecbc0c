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
    shape_of,
)

aten = torch.ops.aten


def _turned(walk: Walk, node: fx.Node) -> Value | None:
    """Matrices the other way round."""
    value, rank = walk.of(node.args[0]), node.meta["val"].ndim
    last = {operand(node, "dim0") % rank, operand(node, "dim1") % rank} == {rank - 1, rank - 2}
    return replace(value, swapped=not value.swapped) if isinstance(value, Weights) and last else None


def _multiplied(walk: Walk, node: fx.Node) -> Value | None:
    """A product weighted by expert, or an operator on elements."""
    first, second = (walk.of(given) for given in node.args)
    product, weight = (first, second) if isinstance(first, Product) else (second, first)
    if not isinstance(product, Product):
        return elementwise(walk, node)
    one = isinstance(weight, Spread) and weight.places == product.places and product.ones is None
    if not one or shape_of(weight.dense)[2:] != (1,):
        return None
    return _weighted(walk, product, weight.dense)


def _weighted(walk: Walk, product: Product, weight: fx.Node) -> Product:
    """`product` times `weight` [T, experts, 1]."""
    call, more = walk.editor.call, product.more
    more = None if more is None else call(aten.mul.Tensor, more, weight)
    return replace(product, x=call(aten.mul.Tensor, product.x, weight), more=more)


def _added(walk: Walk, node: fx.Node) -> Value | None:
    """A product and what each expert adds to it, or an operator on elements."""
    first, second = (walk.of(given) for given in node.args)
    product, more = (first, second) if isinstance(first, Product) else (second, first)
    if not isinstance(product, Product):
        return elementwise(walk, node)
    fits = isinstance(more, Spread) and more.places == product.places and not node.kwargs
    if not fits or product.ones is not None or product.more is not None:
        return None
    return replace(product, more=more.dense)


def _sum(walk: Walk, node: fx.Node) -> Value | None:
    """Over the chosen experts of each token."""
    value, rank = walk.of(node.args[0]), len(shape_of(node.args[0]))
    dims, keep = operand(node, "dim"), operand(node, "keepdim")
    if (
        not isinstance(value, (Spread, Product))
        or value.places != BY_PAIRS
        or [d % rank for d in dims] != [1]
    ):
        return None
    return _over_experts(walk, value, keep=keep)


def _over_experts(walk: Walk, value: Spread | Product, *, keep: bool = False) -> fx.Node | None:
    """The sum of `value` over the chosen experts of each token."""
    call, chosen = walk.editor.call, walk.routing.only_chosen
    if isinstance(value, Spread):
        return call(aten.sum.dim_IntList, chosen(walk.editor, value.dense), [1], keep)
    if keep or value.ones is not None:
        return None
    experts, outputs, inputs = shape_of(value.weight)
    x = call(aten.reshape.default, chosen(walk.editor, value.x), [-1, experts * inputs])
    beside = call(aten.permute.default, value.weight, [1, 0, 2])
    total = call(aten.linear.default, x, call(aten.reshape.default, beside, [outputs, experts * inputs]))
    if value.more is None:
        return total
    more = call(aten.sum.dim_IntList, chosen(walk.editor, value.more), [1])
    return call(aten.add.Tensor, total, more)


def _product(walk: Walk, x: Any, weight: fx.Node, places: Places) -> Spread | Product | None:
    """`x` [T, 1 or experts, K] by `weight` [experts, N, K]."""
    if not isinstance(x, Spread) or x.places != places:
        return None
    walk.multiplied = True
    call, (experts, outputs, inputs) = walk.editor.call, shape_of(weight)
    if shape_of(x.dense)[1] != 1:
        return Product(x=x.dense, weight=weight, places=places)
    rows = call(aten.reshape.default, x.dense, [-1, inputs])
    table = call(aten.reshape.default, weight, [experts * outputs, inputs])
    product = call(aten.linear.default, rows, table)
    return replace(x, dense=call(aten.reshape.default, product, [-1, experts, outputs]))


def _matmul(walk: Walk, node: fx.Node) -> Value | None:
    """Each pair's matrix by its vector, on either side."""
    first, second = (walk.of(given) for given in node.args[:2])
    if isinstance(first, Weights):
        weights, x, ones = first, second, -1
    elif isinstance(second, Weights):
        weights, x, ones = replace(second, swapped=not second.swapped), first, -2
    else:
        return None
    if not isinstance(x, Spread) or shape_of(x.dense)[ones] != 1 or x.dense.meta["val"].ndim != 4:
        return None
    vectors = replace(x, dense=walk.editor.call(aten.squeeze.dim, x.dense, ones))
    product = _product(walk, vectors, _by_outputs(walk, weights), weights.places)
    if isinstance(product, Spread):
        return replace(product, dense=walk.editor.call(aten.unsqueeze.default, product.dense, ones))
    return None if product is None else replace(product, ones=ones)


def _by_outputs(walk: Walk, weights: Weights) -> fx.Node:
    """A matrix [N, K] for each expert."""
    if not weights.swapped:
        return weights.weight
    return walk.editor.call(aten.transpose.int, weights.weight, 1, 2)


def _grouped(walk: Walk, node: fx.Node) -> Value | None:
    """Rows sorted by expert, each expert's by its matrix [K, N]."""
    x, weight, ends = (walk.of(given) for given in node.args[:3])
    if not isinstance(ends, Counts) or not isinstance(x, Spread) or not isinstance(weight, fx.Node):
        return None
    turned = walk.editor.call(aten.transpose.int, weight, 1, 2)
    return _product(walk, x, turned, x.places) if x.places.by is not None else None


def _einsum(walk: Walk, node: fx.Node) -> Value | None:
    """Each pair's vector by its matrix, or a weighted sum over the experts of each token."""
    sides, _, result = str(node.args[0]).replace(" ", "").partition("->")
    labels = sides.split(",")
    operands = [walk.of(given) for given in node.args[1]]  # type: ignore[union-attr]
    if len(operands) != 2:
        return None
    for (one, x), (other, y) in (
        zip(labels, operands, strict=True),
        [*zip(labels, operands, strict=True)][::-1],
    ):
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
    if isinstance(x, fx.Node) and one == pair[:1] + inputs and not weights.places.flat:
        x = Spread(dense=walk.editor.call(aten.unsqueeze.default, x, 1), places=weights.places)
    elif one != pair + inputs:
        return None
    turned = replace(weights, swapped=weights.swapped != (inputs == outer))
    return _product(walk, x, _by_outputs(walk, turned), weights.places)


def _weighted_sum(walk: Walk, value: Spread | Product, weight: Spread) -> fx.Node | None:
    """The sum over the experts of each token of `value` [T, k, N] times `weight` [T, k]."""
    factor = walk.editor.call(aten.unsqueeze.default, weight.dense, -1)
    if isinstance(value, Product):
        return _over_experts(walk, _weighted(walk, value, factor)) if value.ones is None else None
    return _over_experts(walk, replace(value, dense=walk.editor.call(aten.mul.Tensor, value.dense, factor)))


def _index_added(walk: Walk, node: fx.Node) -> Value | None:
    """Rows of pairs added to their tokens'."""
    base, order, value = (walk.of(node.args[at]) for at in (0, 2, 3))
    tokens = isinstance(order, Order) and order.tokens and operand(node, "dim") == 0 and not node.kwargs
    if not tokens or not isinstance(base, fx.Node) or not isinstance(value, (Spread, Product)):
        return None
    total = _over_experts(walk, value) if value.places == Places(flat=True, by=order.by) else None
    return None if total is None else walk.editor.call(aten.add.Tensor, base, total)


PRODUCTS: Final[Mapping[Any, Rule]] = {
    aten.transpose.int: _turned,
    aten.mul.Tensor: _multiplied,
    aten.add.Tensor: _added,
    aten.sum.dim_IntList: _sum,
    **dict.fromkeys((aten.bmm.default, aten.matmul.default), _matmul),
    aten._grouped_mm.default: _grouped,  # noqa: SLF001 - the operator's name
    "transformers.grouped_mm_fallback.default": _grouped,  # known to torch only where transformers is
    aten.einsum.default: _einsum,
    aten.index_add.default: _index_added,
}
