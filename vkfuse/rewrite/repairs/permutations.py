"""Permutations by way of a fifth dimension, in the dimensions that there are.

``nn.MultiheadAttention`` brings queries, keys and values to the front as ``x.unsqueeze(0).transpose(0, -2).squeeze(-2)``,
of five dimensions on the way, which Vulkan tensors have not. It is a permutation of the four.
"""

import torch
from torch import fx
from torch.export import ExportedProgram

from vkfuse.rewrite.arguments import argument
from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.repairs.each import replace_each
from vkfuse.rewrite.repairs.notes import Repair

aten = torch.ops.aten

_MOST = 4
_PERMUTATIONS = (aten.transpose.int, aten.permute.default)


def permutations_without_ones(exported: ExportedProgram) -> tuple[ExportedProgram, tuple[Repair, ...]]:
    """Replace each squeezed transposition of an unsqueezed tensor of four dimensions."""
    found = {n: p for n in exported.graph.nodes if (p := _permutation(n)) is not None}

    def permuted(editor: GraphEditor, node: fx.Node) -> fx.Node:
        source, order = found[node]
        return editor.call(aten.permute.default, editor.node(source), order)

    detail = "four dimensions in place of five"
    return replace_each(exported, found, permuted, code="permuted-in-four-dimensions", detail=detail)


def permutations_in_one(exported: ExportedProgram) -> tuple[ExportedProgram, tuple[Repair, ...]]:
    """Replace each permutation of a permuted tensor by one of that tensor, or by it, copies aside."""
    found = {n: o for n in exported.graph.nodes if (o := _second(n)) is not None}

    def once(editor: GraphEditor, node: fx.Node) -> fx.Node:
        first = argument(node, 0, "self")
        source = editor.node(argument(first, 0, "self"))
        order = found[node]
        return source if order == sorted(order) else editor.call(aten.permute.default, source, order)

    detail = "one copy in place of two"
    return replace_each(exported, found, once, code="permutations-in-one", detail=detail)


def _second(node: fx.Node) -> list[int] | None:
    """The order in which `node` has the dimensions that the permutation before it was given."""
    if node.target not in _PERMUTATIONS:
        return None
    first = argument(node, 0, "self")
    if first.op != "call_function" or first.target not in _PERMUTATIONS:
        return None
    rank = node.meta["val"].ndim
    before = _order(first, rank)
    return [before[d] for d in _order(node, rank)]


def _permutation(node: fx.Node) -> tuple[fx.Node, list[int]] | None:
    """The tensor and the order of its dimensions, where `node` is such a squeeze and removes the added dimension."""
    if node.target != aten.squeeze.dim:
        return None
    moved = argument(node, 0, "self")
    if moved.target not in {aten.transpose.int, aten.permute.default} or moved.meta["val"].ndim <= _MOST:
        return None
    added = argument(moved, 0, "self")
    if added.target != aten.unsqueeze.default:
        return None
    source, rank = argument(added, 0, "self"), moved.meta["val"].ndim
    dimensions: list[int | None] = list(range(rank - 1))
    dimensions.insert(argument(added, 1, "dim") % rank, None)
    order = [dimensions[d] for d in _order(moved, rank)]
    removed = order.pop(argument(node, 1, "dim") % rank)
    return None if removed is not None else (source, [d for d in order if d is not None])


def _order(moved: fx.Node, rank: int) -> list[int]:
    if moved.target == aten.permute.default:
        return [d % rank for d in argument(moved, 1, "dims")]
    order, one, other = (
        list(range(rank)),
        argument(moved, 1, "dim0") % rank,
        argument(moved, 2, "dim1") % rank,
    )
    order[one], order[other] = order[other], order[one]
    return order
