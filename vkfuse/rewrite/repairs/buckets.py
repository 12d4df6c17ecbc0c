"""Buckets as counts of boundaries: ExecuTorch has no kernel of bucketize and searchsorted.

Of sorted boundaries, those below a value are as many as the index of its bucket. A value that is no number is above all.
"""

from collections.abc import Mapping

import torch
from torch import fx
from torch.export import ExportedProgram

from vkfuse.rewrite.arguments import argument
from vkfuse.rewrite.constants import Constants
from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.repairs.each import replace_each
from vkfuse.rewrite.repairs.notes import Repair

aten = torch.ops.aten

_PLACES: Mapping[object, tuple[int, int]] = {  # of values and of boundaries
    aten.bucketize.Tensor: (0, 1),
    aten.searchsorted.Tensor: (1, 0),
}


def buckets_as_counts(exported: ExportedProgram) -> tuple[ExportedProgram, tuple[Repair, ...]]:
    """Count, for each value, the constant boundaries [n] that are not at or above it, or with `right` not above it."""
    constants = Constants(exported)
    found = [n for n in exported.graph.nodes if n.target in _PLACES and _is_known(n, constants)]
    detail = "the runtime has no bucketize"
    return replace_each(exported, found, _count, code="buckets-as-counts", detail=detail)


def _parts(node: fx.Node) -> tuple[fx.Node, fx.Node]:
    """Values and boundaries."""
    values, boundaries = _PLACES[node.target]
    return node.args[values], node.args[boundaries]  # type: ignore[return-value]


def _is_right(node: fx.Node) -> bool:
    return bool(argument(node, 3, "right", default=False)) or node.kwargs.get("side") == "right"


def _is_known(node: fx.Node, constants: Constants) -> bool:
    """Whether the boundaries are one sorted row that no input reaches; an order apart is not written out."""
    values, boundaries = _parts(node)
    if boundaries not in constants or values in constants or node.kwargs.get("sorter") is not None:
        return False
    row = constants.value(boundaries)
    return row.ndim == 1 and row.numel() > 0 and bool((row[1:] >= row[:-1]).all()) and not row.isnan().any()


def _count(editor: GraphEditor, node: fx.Node) -> fx.Node:
    values, boundaries = _parts(node)
    reached = editor.call(aten.unsqueeze.default, editor.node(values), -1)
    above = aten.gt.Tensor if _is_right(node) else aten.ge.Tensor
    passed = editor.call(aten.logical_not.default, editor.call(above, editor.node(boundaries), reached))
    return editor.call(aten.sum.dim_IntList, passed, [-1], dtype=node.meta["val"].dtype)
