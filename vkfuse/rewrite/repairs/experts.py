"""Mixtures of experts as wide linears: all experts are computed, and those that are not chosen count zero times.

A program reads the weights of the chosen experts by index, or sorts tokens by expert and multiplies group by group. No
runtime has either, and weights read so are floats. All experts' first products are one linear, ``[experts * N, K]``; the
last product, weighted and summed, is one linear too, ``[N, experts * K]`` over all experts' columns side by side. Both are
tables like any other; sums are in another order. It costs the products of experts that are not chosen, which a delegate
that reads 4-bit tables has sooner than the chosen ones' weights as floats, unless there are many experts.

What stands between topk and the sum is followed as it is for all experts: a tensor with a place for each chosen expert of a
token, in whatever order, is one with a place for every expert.
"""

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from typing import Any, Final, TypeAlias

import torch
from torch import fx
from torch.export import ExportedProgram

from vkfuse.rewrite.arguments import argument
from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.repairs.notes import Repair, Repairs
from vkfuse.rewrite.repairs.routing import Routing, routing_of

aten = torch.ops.aten


@dataclass(frozen=True, slots=True, kw_only=True)
class _Places:
    """How chosen experts are laid out: [T, k, ...] or, flat, [T * k, ...], sorted by expert by the node `by`."""

    flat: bool = False
    by: fx.Node | None = None

    @property
    def leading(self) -> int:
        """How many dimensions say which expert of which token."""
        return 1 if self.flat else 2


@dataclass(frozen=True, slots=True, kw_only=True)
class _Spread:
    """A tensor of the chosen experts, as `dense` of all: [T or 1, experts or 1, ...]."""

    dense: fx.Node
    places: _Places


@dataclass(frozen=True, slots=True, kw_only=True)
class _Product:
    """Products [..., N] of `x` [T, experts, K] with `weight` [experts, N, K], plus `more` [.., experts, N]; not computed.

    `ones` are dimensions of one that the program has about the last, from the end.
    """

    x: fx.Node
    weight: fx.Node
    places: _Places
    more: fx.Node | None = None
    ones: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Weights:
    """The chosen experts' matrices: of `weight` [experts, A, B], or its transposes."""

    weight: fx.Node
    places: _Places
    swapped: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Choice:
    """Which experts are chosen."""

    places: _Places


@dataclass(frozen=True, slots=True, kw_only=True)
class _Counts:
    """How many tokens each expert has, or where each expert's end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Order:
    """The order that the node `by` sorts in: places (`back`: of what is sorted, in the unsorted), or their tokens."""

    by: fx.Node
    back: bool = False
    tokens: bool = False


_Value: TypeAlias = _Spread | _Product | _Weights | _Choice | _Counts | _Order | fx.Node
_Rule: TypeAlias = "Callable[[_Walk, fx.Node], _Value | None]"
_BY_PAIRS: Final = _Places()


def experts_as_wide_linears(exported: ExportedProgram) -> Repairs:
    """Replace each mixture of experts that is understood from its topk to its sums."""
    found = [n for n in exported.graph.nodes if n.target == aten.topk.default]
    editor = GraphEditor(exported)
    notes = [note for topk in found if (note := _replaced(editor, topk)) is not None]
    return (editor.finish(), tuple(notes)) if notes else (exported, ())


def _replaced(editor: GraphEditor, topk: fx.Node) -> Repair | None:
    routing = routing_of(editor, topk)
    walk = None if routing is None else _walked(_Walk(editor=editor, routing=routing))
    if routing is None or walk is None or not walk.multiplied:
        return None
    for node, new in walk.results.items():
        editor.replace(node, new)
    for node in reversed(walk.dropped):
        editor.erase(node)
    detail = f"{routing.count} of {routing.experts} for a token; all are computed"
    return Repair(
        code="experts-as-wide-linears", nodes=(topk.name, *(n.name for n in walk.results)), detail=detail
    )


@dataclass(slots=True, kw_only=True)
class _Walk:
    """What is known of the nodes behind a choice so far: as a tensor of all experts, or as `results` without any."""

    editor: GraphEditor
    routing: Routing
    values: dict[fx.Node, _Value] = field(default_factory=dict)
    results: dict[fx.Node, fx.Node] = field(default_factory=dict)
    dropped: list[fx.Node] = field(default_factory=list)
    multiplied: bool = False

    def of(self, given: Any) -> Any:
        """What is known of an argument, else its node in the copy, or itself."""
        if not isinstance(given, fx.Node):
            return given
        return self.values.get(given) or _repeated(self, given) or self.editor.node(given)


def _walked(walk: _Walk) -> _Walk | None:
    """Follow all that comes of the choice; None where something is not understood."""
    left = [walk.routing.topk]
    while left:
        node = heappop(left)
        if node in walk.values or node in walk.results or node in walk.dropped:
            continue
        if node.target == aten._assert_tensor_metadata.default:  # noqa: SLF001 - the operator's name
            walk.dropped.append(node)
            continue
        rule = _grouped if str(node.target) == _GROUPED else _RULES.get(node.target)
        with walk.editor.before(node):
            value = None if rule is None else rule(walk, node)
        if value is None:
            return None
        if isinstance(value, fx.Node):
            walk.results[node] = value
            continue
        walk.values[node] = value
        for user in node.users:
            heappush(left, user)
    return walk


def _topk(walk: _Walk, node: fx.Node) -> _Value | None:
    return _Choice(places=_BY_PAIRS) if node is walk.routing.topk else None


def _item(walk: _Walk, node: fx.Node) -> _Value | None:
    """One result of topk, of a sort or of a split."""
    source: fx.Node = node.args[0]  # type: ignore[assignment]
    value, at = walk.of(source), node.args[1]
    if source is walk.routing.topk:
        return value if at else _Spread(dense=walk.routing.scores, places=_BY_PAIRS)
    if isinstance(value, _Choice):
        return _Order(by=source) if at else value
    if isinstance(value, _Spread):
        return replace(value, dense=walk.editor.call(operator.getitem, value.dense, at))
    return None


def _sort(walk: _Walk, node: fx.Node) -> _Value | None:
    """Tokens by expert."""
    value = walk.of(argument(node, 0, "self"))
    if not isinstance(value, _Choice) or value.places != _Places(flat=True):
        return None
    return _Choice(places=_Places(flat=True, by=node))


def _count(walk: _Walk, node: fx.Node) -> _Value | None:
    """A histogram of experts."""
    ends = [walk.routing.experts, 0, walk.routing.experts - 1]
    given = [argument(node, i, name) for i, name in enumerate(("bins", "min", "max"), 1)]
    return _Counts() if isinstance(walk.of(node.args[0]), _Choice) and given == ends else None


def _summed(walk: _Walk, node: fx.Node) -> _Value | None:
    value = walk.of(node.args[0])
    return value if isinstance(value, _Counts) and argument(node, 1, "dim") == 0 else None


def _token(walk: _Walk, node: fx.Node) -> _Value | None:
    """Places of pairs, divided by the number of experts of a token."""
    value, divisor = walk.of(node.args[0]), argument(node, 1, "other")
    mode = argument(node, 2, "rounding_mode", "floor")
    plain = isinstance(value, _Order) and not value.back and not value.tokens
    if not plain:
        return _elementwise(walk, node)
    return replace(value, tokens=True) if (divisor, mode) == (walk.routing.count, "floor") else None


def _blank(walk: _Walk, node: fx.Node) -> _Value | None:
    """Room for an order."""
    value = walk.of(node.args[0])
    return value if isinstance(value, _Order) else None


def _inverse(walk: _Walk, node: fx.Node) -> _Value | None:
    """``inverse[order] = arange``."""
    order, value = walk.of(argument(node, 1, "indices")[0]), argument(node, 2, "values")
    counted = isinstance(value, fx.Node) and value.target == aten.arange.default
    plain = isinstance(order, _Order) and not order.back and not order.tokens
    return replace(order, back=True) if plain and counted else None


def _indexed(walk: _Walk, node: fx.Node) -> _Value | None:
    """Rows in an order, tokens of places, what each chosen expert has."""
    indices = argument(node, 1, "indices")
    if len(indices) != 1:
        return None
    source, by = walk.of(argument(node, 0, "self")), walk.of(indices[0])
    match source, by:
        case fx.Node(), _Choice(places=places):
            return _of_experts(walk, source, places)
        case fx.Node(), _Order(by=sort, tokens=True):
            rows = walk.editor.call(aten.unsqueeze.default, source, 1)
            return _Spread(dense=rows, places=_Places(flat=True, by=sort))
        case ((_Spread() | _Product() | _Choice()), _Order(by=sort, back=back, tokens=False)):
            before, after = (
                _Places(flat=True, by=sort if back else None),
                _Places(flat=True, by=None if back else sort),
            )
            return replace(source, places=after) if source.places == before else None
    return None


def _of_experts(walk: _Walk, source: fx.Node, places: _Places) -> _Value | None:
    """What experts have: `source` [experts, ...]."""
    value = source.meta["val"]
    if value.shape[0] != walk.routing.experts or not value.is_floating_point():
        return None
    if value.ndim == _MATRICES:
        return _Weights(weight=source, places=places)
    return _Spread(dense=walk.editor.call(aten.unsqueeze.default, source, 0), places=places)


def _gathered(walk: _Walk, node: fx.Node) -> _Value | None:
    """The chosen experts' scores, of those that were chosen by or of others."""
    source, choice = walk.of(node.args[0]), walk.of(argument(node, 2, "index"))
    plain = isinstance(source, fx.Node) and isinstance(choice, _Choice) and choice.places == _BY_PAIRS
    last = argument(node, 1, "dim") in {-1, 1} and plain and source.meta["val"].ndim == 2
    return _Spread(dense=source, places=_BY_PAIRS) if last else None


def _repeated(walk: _Walk, node: fx.Node) -> _Spread | None:
    """A tensor of tokens, each repeated for its experts."""
    if node.target == aten.unsqueeze.default:
        inner = _repeated(walk, node.args[0])  # type: ignore[arg-type]
        return None if inner is None else _moved(walk, node, inner)
    count = walk.routing.count
    if node.target != aten.repeat_interleave.self_int or node.args[1:] not in {(count, 0), (count, 0, None)}:
        return None
    rows = walk.editor.call(aten.unsqueeze.default, walk.editor.node(node.args[0]), 1)  # type: ignore[arg-type]
    return _Spread(dense=rows, places=_Places(flat=True))


def _copied(walk: _Walk, node: fx.Node) -> _Value | None:
    """The same, or another type, which orders and counts need not have."""
    value, dtype = walk.of(node.args[0]), node.meta["val"].dtype
    if isinstance(value, (_Choice, _Counts, _Order)):
        return value
    if isinstance(value, _Product):
        return value if value.x.meta["val"].dtype == dtype else None
    if not isinstance(value, _Spread):
        return None
    to = walk.editor.call(aten._to_copy.default, value.dense, dtype=dtype)  # noqa: SLF001 - the operator's name
    return value if value.dense.meta["val"].dtype == dtype else replace(value, dense=to)


def _viewed(walk: _Walk, node: fx.Node) -> _Value | None:
    """Pairs laid out flat, or back; or other dimensions behind them."""
    source: fx.Node = node.args[0]  # type: ignore[assignment]
    value = walk.of(source)
    if not isinstance(value, (_Spread, _Product, _Choice)) or value.places.by is not None:
        return None
    before, after = source.meta["val"].shape, node.meta["val"].shape
    behind = before[value.places.leading :]
    for places in (_Places(flat=True), _BY_PAIRS):
        if after[places.leading :] == behind and _leads(walk, after, places):
            return replace(value, places=places)
    if isinstance(value, _Spread) and str(after[:1]) == str(before[:1]) and value.places.flat:
        leading = [s if isinstance(s, int) else -1 for s in value.dense.meta["val"].shape[:2]]
        return replace(
            value, dense=walk.editor.call(aten.reshape.default, value.dense, [*leading, *after[1:]])
        )
    return None


def _leads(walk: _Walk, shape: torch.Size, places: _Places) -> bool:
    """Whether a shape can begin as `places` does."""
    return len(shape) >= places.leading and (places.flat or shape[1] == walk.routing.count)


def _turned(walk: _Walk, node: fx.Node) -> _Value | None:
    """Matrices the other way round."""
    value, rank = walk.of(node.args[0]), node.meta["val"].ndim
    last = {argument(node, 1, "dim0") % rank, argument(node, 2, "dim1") % rank} == {rank - 1, rank - 2}
    return replace(value, swapped=not value.swapped) if isinstance(value, _Weights) and last else None


def _shaped(walk: _Walk, node: fx.Node) -> _Value | None:
    """A change of dimensions behind the pairs."""
    value = walk.of(node.args[0])
    if isinstance(value, _Product):
        return _column(node, value)
    return _moved(walk, node, value) if isinstance(value, _Spread) else None


def _moved(walk: _Walk, node: fx.Node, value: _Spread) -> _Spread | None:
    """`node`, which names one dimension behind the pairs, over all experts."""
    at = _DIMENSION[node.target]
    rank = len(_shape_of(node.args[0])) + (node.target == aten.unsqueeze.default)
    dim = argument(node, at, "dim", 0) % rank
    if dim < value.places.leading:
        return None
    args = [*node.args[1:at], dim + 2 - value.places.leading, *node.args[at + 1 :]]
    return replace(
        value, dense=walk.editor.call(node.target, value.dense, *args, **_less(node.kwargs, "dim"))
    )


def _shape_of(node: Any) -> torch.Size:
    shape: torch.Size = node.meta["val"].shape
    return shape


def _less(kwargs: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in kwargs.items() if key != name}


def _column(node: fx.Node, value: _Product) -> _Product | None:
    """A dimension of one taken off a product, or added to it."""
    rank = len(_shape_of(node.args[0]))
    if node.target == aten.squeeze.dim and value.ones is not None:
        taken = argument(node, 1, "dim") % rank - rank == value.ones
        return replace(value, ones=None) if taken else None
    return None


def _elementwise(walk: _Walk, node: fx.Node) -> _Value | None:
    """An operator that computes each element by itself."""
    operands = [walk.of(given) for given in node.args]
    spread = [value for value in operands if isinstance(value, _Spread)]
    places = {value.places for value in spread}
    fits = all(
        isinstance(value, (_Spread, int, float, type(None)))
        or (isinstance(value, fx.Node) and len(places) == 1 and _stands_beside(value, node, spread[0].places))
        for value in operands
    )
    ranks = {len(_shape_of(given)) for given in node.args if isinstance(walk.of(given), _Spread)}
    if len(places) != 1 or not fits or ranks != {len(_shape_of(node))}:
        return None
    dense = [value.dense if isinstance(value, _Spread) else value for value in operands]
    return replace(spread[0], dense=walk.editor.call(node.target, *dense, **node.kwargs))


def _stands_beside(other: fx.Node, node: fx.Node, places: _Places) -> bool:
    """Whether a tensor is the same for all experts of a token."""
    shape, rank = _shape_of(other), len(_shape_of(node))
    return len(shape) <= rank - places.leading or (not places.flat and len(shape) == rank and shape[1] == 1)


def _multiplied(walk: _Walk, node: fx.Node) -> _Value | None:
    """A product weighted by expert, or an operator on elements."""
    first, second = (walk.of(given) for given in node.args)
    product, weight = (first, second) if isinstance(first, _Product) else (second, first)
    if not isinstance(product, _Product):
        return _elementwise(walk, node)
    one = isinstance(weight, _Spread) and weight.places == product.places and product.ones is None
    if not one or _shape_of(weight.dense)[2:] != (1,):
        return None
    return _weighted(walk, product, weight.dense)


def _weighted(walk: _Walk, product: _Product, weight: fx.Node) -> _Product:
    """`product` times `weight` [T, experts, 1]."""
    call, more = walk.editor.call, product.more
    more = None if more is None else call(aten.mul.Tensor, more, weight)
    return replace(product, x=call(aten.mul.Tensor, product.x, weight), more=more)


def _added(walk: _Walk, node: fx.Node) -> _Value | None:
    """A product and what each expert adds to it, or an operator on elements."""
    first, second = (walk.of(given) for given in node.args)
    product, more = (first, second) if isinstance(first, _Product) else (second, first)
    if not isinstance(product, _Product):
        return _elementwise(walk, node)
    fits = isinstance(more, _Spread) and more.places == product.places and not node.kwargs
    if not fits or product.ones is not None or product.more is not None:
        return None
    return replace(product, more=more.dense)


def _softmax(walk: _Walk, node: fx.Node) -> _Value | None:
    """Over the chosen experts of a token, or behind the pairs."""
    value, rank = walk.of(node.args[0]), len(_shape_of(node))
    if not isinstance(value, _Spread) or value.places != _BY_PAIRS:
        return None
    if argument(node, 1, "dim") % rank != 1:
        return _moved(walk, node, value)
    return replace(value, dense=walk.routing.softmax(walk.editor, value.dense)) if rank == 2 else None


def _sum(walk: _Walk, node: fx.Node) -> _Value | None:
    """Over the chosen experts of each token."""
    value, rank = walk.of(node.args[0]), len(_shape_of(node.args[0]))
    dims, keep = argument(node, 1, "dim"), argument(node, 2, "keepdim", default=False)
    if (
        not isinstance(value, (_Spread, _Product))
        or value.places != _BY_PAIRS
        or [d % rank for d in dims] != [1]
    ):
        return None
    return _over_experts(walk, value, keep=keep)


def _over_experts(walk: _Walk, value: _Spread | _Product, *, keep: bool = False) -> fx.Node | None:
    """The sum of `value` over the chosen experts of each token."""
    call, chosen = walk.editor.call, walk.routing.only_chosen
    if isinstance(value, _Spread):
        return call(aten.sum.dim_IntList, chosen(walk.editor, value.dense), [1], keep)
    if keep or value.ones is not None:
        return None
    experts, outputs, inputs = _shape_of(value.weight)
    x = call(aten.reshape.default, chosen(walk.editor, value.x), [-1, experts * inputs])
    beside = call(aten.permute.default, value.weight, [1, 0, 2])
    total = call(aten.linear.default, x, call(aten.reshape.default, beside, [outputs, experts * inputs]))
    if value.more is None:
        return total
    more = call(aten.sum.dim_IntList, chosen(walk.editor, value.more), [1])
    return call(aten.add.Tensor, total, more)


def _product(walk: _Walk, x: Any, weight: fx.Node, places: _Places) -> _Spread | _Product | None:
    """`x` [T, 1 or experts, K] by `weight` [experts, N, K]."""
    if not isinstance(x, _Spread) or x.places != places:
        return None
    walk.multiplied = True
    call, (experts, outputs, inputs) = walk.editor.call, _shape_of(weight)
    if _shape_of(x.dense)[1] != 1:
        return _Product(x=x.dense, weight=weight, places=places)
    rows = call(aten.reshape.default, x.dense, [-1, inputs])
    table = call(aten.reshape.default, weight, [experts * outputs, inputs])
    product = call(aten.linear.default, rows, table)
    return replace(x, dense=call(aten.reshape.default, product, [-1, experts, outputs]))


def _matmul(walk: _Walk, node: fx.Node) -> _Value | None:
    """Each pair's matrix by its vector, on either side."""
    first, second = (walk.of(given) for given in node.args[:2])
    if isinstance(first, _Weights):
        weights, x, ones = first, second, -1
    elif isinstance(second, _Weights):
        weights, x, ones = replace(second, swapped=not second.swapped), first, -2
    else:
        return None
    if not isinstance(x, _Spread) or _shape_of(x.dense)[ones] != 1 or x.dense.meta["val"].ndim != 4:
        return None
    vectors = replace(x, dense=walk.editor.call(aten.squeeze.dim, x.dense, ones))
    product = _product(walk, vectors, _by_outputs(walk, weights), weights.places)
    if isinstance(product, _Spread):
        return replace(product, dense=walk.editor.call(aten.unsqueeze.default, product.dense, ones))
    return None if product is None else replace(product, ones=ones)


def _by_outputs(walk: _Walk, weights: _Weights) -> fx.Node:
    """A matrix [N, K] for each expert."""
    if not weights.swapped:
        return weights.weight
    return walk.editor.call(aten.transpose.int, weights.weight, 1, 2)


def _grouped(walk: _Walk, node: fx.Node) -> _Value | None:
    """Rows sorted by expert, each expert's by its matrix [K, N]."""
    x, weight, ends = (walk.of(given) for given in node.args[:3])
    if not isinstance(ends, _Counts) or not isinstance(x, _Spread) or not isinstance(weight, fx.Node):
        return None
    turned = walk.editor.call(aten.transpose.int, weight, 1, 2)
    return _product(walk, x, turned, x.places) if x.places.by is not None else None


def _einsum(walk: _Walk, node: fx.Node) -> _Value | None:
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
        if isinstance(y, _Weights):
            return _contracted(walk, x, one, y, other, result)
        if isinstance(y, _Spread) and isinstance(x, (_Spread, _Product)) and other == one[:2]:
            return _weighted_sum(walk, x, y) if result == one[0] + one[2:] and x.places == _BY_PAIRS else None
    return None


def _contracted(walk: _Walk, x: Any, one: str, weights: _Weights, other: str, result: str) -> _Value | None:
    """``ti,taio->tao`` and its like."""
    pair, outer, inner = other[:-2], other[-2], other[-1]
    inputs = one[-1:]
    outputs = outer if inputs == inner else inner
    if len(pair) != weights.places.leading or inputs not in {inner, outer} or result != pair + outputs:
        return None
    if isinstance(x, fx.Node) and one == pair[:1] + inputs and not weights.places.flat:
        x = _Spread(dense=walk.editor.call(aten.unsqueeze.default, x, 1), places=weights.places)
    elif one != pair + inputs:
        return None
    turned = replace(weights, swapped=weights.swapped != (inputs == outer))
    return _product(walk, x, _by_outputs(walk, turned), weights.places)


def _weighted_sum(walk: _Walk, value: _Spread | _Product, weight: _Spread) -> fx.Node | None:
    """The sum over the experts of each token of `value` [T, k, N] times `weight` [T, k]."""
    factor = walk.editor.call(aten.unsqueeze.default, weight.dense, -1)
    if isinstance(value, _Product):
        return _over_experts(walk, _weighted(walk, value, factor)) if value.ones is None else None
    return _over_experts(walk, replace(value, dense=walk.editor.call(aten.mul.Tensor, value.dense, factor)))


def _index_added(walk: _Walk, node: fx.Node) -> _Value | None:
    """Rows of pairs added to their tokens'."""
    base, order, value = (walk.of(node.args[at]) for at in (0, 2, 3))
    tokens = isinstance(order, _Order) and order.tokens and argument(node, 1, "dim") == 0 and not node.kwargs
    if not tokens or not isinstance(base, fx.Node) or not isinstance(value, (_Spread, _Product)):
        return None
    total = _over_experts(walk, value) if value.places == _Places(flat=True, by=order.by) else None
    return None if total is None else walk.editor.call(aten.add.Tensor, base, total)


def _scattered(walk: _Walk, node: fx.Node) -> _Value | None:
    """Scores of the chosen experts among zeros."""
    base, choice, value = (walk.of(node.args[at]) for at in (0, 2, 3))
    blank = (
        isinstance(base, fx.Node)
        and base.target in _ZEROS
        and _shape_of(base) == _shape_of(walk.routing.scores)
    )
    plain = (
        isinstance(value, _Spread)
        and isinstance(choice, _Choice)
        and value.places == choice.places == _BY_PAIRS
    )
    if not blank or not plain or argument(node, 1, "dim") not in {1, -1}:
        return None
    return walk.routing.only_chosen(walk.editor, value.dense)


_GROUPED: Final = "transformers.grouped_mm_fallback.default"  # known to torch only where transformers is
_MATRICES: Final = 3  # [experts, N, K]
_ZEROS: Final = (aten.zeros_like.default, aten.zeros.default, aten.new_zeros.default)
_DIMENSION: Final[Mapping[Any, int]] = {  # where an operator names the dimension
    aten.unsqueeze.default: 1,
    aten.squeeze.dim: 1,
    aten.slice.Tensor: 1,
    aten.select.int: 1,
    aten.split.Tensor: 2,
    aten.split_with_sizes.default: 2,
    aten.softmax.int: 1,
}
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
    aten.pow.Tensor_Scalar,
)
_RULES: Final[Mapping[Any, _Rule]] = {
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
    **dict.fromkeys((aten._to_copy.default, aten.type_as.default), _copied),  # noqa: SLF001 - the operator's name
    **dict.fromkeys((aten.view.default, aten.reshape.default), _viewed),
    aten.transpose.int: _turned,
    **dict.fromkeys(_ON_ELEMENTS, _elementwise),
    **dict.fromkeys(_DIMENSION, _shaped),
    aten.mul.Tensor: _multiplied,
    aten.add.Tensor: _added,
    aten.softmax.int: _softmax,
    aten.sum.dim_IntList: _sum,
    **dict.fromkeys((aten.bmm.default, aten.matmul.default), _matmul),
    aten._grouped_mm.default: _grouped,  # noqa: SLF001 - the operator's name
    aten.einsum.default: _einsum,
    aten.index_add.default: _index_added,
    aten.scatter.src: _scattered,
}
