"""Mixtures of experts as wide linears: all experts are computed, and those that are not chosen count zero times.

A program reads the weights of the chosen experts by index, or sorts tokens by expert and multiplies group by group. No
runtime has either, and weights read so are floats. All experts' first products are one linear, ``[experts * N, K]``; the
last product, weighted and summed, is one linear too, ``[N, experts * K]`` over all experts' columns side by side. Both are
tables like any other; sums are in another order. It costs the products of experts that are not chosen, which a delegate
that reads 4-bit tables has sooner than the chosen ones' weights as floats, unless there are many experts.

What stands between topk and the sum is followed as it is for all experts: a tensor with a place for each chosen expert of a
token, in whatever order, is one with a place for every expert.
"""

from collections.abc import Mapping
from heapq import heappop, heappush
from typing import Any, Final

import torch
from torch import fx
from torch.export import ExportedProgram
from torch.utils._pytree import tree_leaves

from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.repairs.each import Repair, Repairs
from vkfuse.rewrite.repairs.experts.choices import CHOICES
from vkfuse.rewrite.repairs.experts.elements import ELEMENTS
from vkfuse.rewrite.repairs.experts.known import Known, Product, Rule, Spread, Value, Walk, shape_of
from vkfuse.rewrite.repairs.experts.products import PRODUCTS
from vkfuse.rewrite.repairs.experts.routing import routing_of
from vkfuse.rewrite.traced import untraced

aten = torch.ops.aten

_RULES: Final[Mapping[Any, Rule]] = {**CHOICES, **ELEMENTS, **PRODUCTS}  # by target, or its name


def experts_as_wide_linears(exported: ExportedProgram) -> Repairs:
    """Replace each mixture of experts that is understood from its topk to its sums."""
    found = [n for n in exported.graph.nodes if n.target == aten.topk.default]
    editor = GraphEditor(exported)
    notes = [note for topk in found if (note := _replaced(editor, topk)) is not None]
    return (editor.finish(), tuple(notes)) if notes else (exported, ())


def _replaced(editor: GraphEditor, topk: fx.Node) -> Repair | None:
    routing = routing_of(editor, topk)
    walk = None if routing is None else _walked(Walk(editor=editor, routing=routing))
    if routing is None or walk is None or not walk.multiplied:
        return None
    for node, new in walk.results.items():
        editor.replace(node, new)
    detail = f"{routing.count} of {routing.experts} for a token; all are computed"
    return Repair(
        code="experts-as-wide-linears", nodes=(topk.name, *(n.name for n in walk.results)), detail=detail
    )


def _walked(walk: Walk) -> Walk | None:
    """Follow all that comes of the choice; None where something is not understood."""
    left = [walk.routing.topk]
    while left:
        node = heappop(left)
        if node in walk.values or node in walk.results:
            continue
        rule = _RULES.get(node.target) or _RULES.get(str(node.target))
        with walk.editor.before(node):
            value = None if rule is None else rule(walk, node)
        if value is None or not _alike(value, node):
            return None
        if not isinstance(value, Known):
            walk.results[node] = value
            continue
        walk.values[node] = value
        for user in node.users:
            heappush(left, user)
    return walk


def _alike(value: Value, node: fx.Node) -> bool:
    """Whether what stands for `node` has its type and, a result, its sizes but for the number of tokens."""
    match value:
        case Spread(dense=made):
            return _types(made) == _types(node)
        case Product(x=x, weight=weight):
            return _types(x, weight) == _types(node)
        case Known():
            return True
    return value.shape[1:] == shape_of(node)[1:] and _types(value) == _types(node)


def _types(*of: fx.Node | torch.Tensor) -> set[torch.dtype]:
    return {value.dtype for node in untraced(of) for value in tree_leaves(node.meta["val"])}
