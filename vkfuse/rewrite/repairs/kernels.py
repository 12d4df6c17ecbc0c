"""Operators of integers that ExecuTorch has no kernel for, or one that computes something else, as others that it has."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import fx

from vkfuse.rewrite.arguments import argument
from vkfuse.rewrite.constants import Constants
from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.repairs.each import replaces

aten = torch.ops.aten

_PLACES: Mapping[object, tuple[int, int]] = {  # of values and of boundaries
    aten.bucketize.Tensor: (0, 1),
    aten.searchsorted.Tensor: (1, 0),
}


@replaces(*_PLACES, code="buckets-as-counts", detail="the runtime has no bucketize")
def buckets_as_counts(editor: GraphEditor, node: fx.Node) -> fx.Node | None:
    """Count, for each value, the constant boundaries [n] that are not at or above it, or with `right` not above it.

    Of sorted boundaries, those below a value are as many as the index of its bucket. What is no number is above all.
    """
    values, boundaries = (node.args[place] for place in _PLACES[node.target])
    if values in editor.constants or not _is_known(node, boundaries, editor.constants):
        return None
    right = bool(argument(node, 3, "right", default=False)) or node.kwargs.get("side") == "right"
    reached = editor.call(aten.unsqueeze.default, values, -1)
    above = editor.call(aten.gt.Tensor if right else aten.ge.Tensor, boundaries, reached)
    passed = editor.call(aten.logical_not.default, above)
    return editor.call(aten.sum.dim_IntList, passed, [-1], dtype=node.meta["val"].dtype)


def _is_known(node: fx.Node, boundaries: Any, constants: Constants) -> bool:
    """Whether the boundaries are one sorted row that no input reaches; an order apart is not written out."""
    if boundaries not in constants or node.kwargs.get("sorter") is not None:
        return False
    row = constants.value(boundaries)
    return row.ndim == 1 and row.numel() > 0 and bool((row[1:] >= row[:-1]).all()) and not row.isnan().any()


@replaces(
    *(aten.remainder.Scalar, aten.remainder.Tensor),
    code="remainders-with-sign",
    detail="the runtime's remainder has the sign of what is divided",
)
def remainders_with_sign(editor: GraphEditor, node: fx.Node) -> fx.Node | None:
    """Add the divisor to each remainder of integers that has not its sign.

    ExecuTorch's kernel gives the sign of C (kernels/portable/cpu/util/math_util.h, remainder_override): -1 % 64 is -1.
    """
    if node.meta["val"].dtype not in {torch.int8, torch.int16, torch.int32, torch.int64}:
        return None
    rest, divisor = editor.call(node.target, *node.args), node.args[1]
    moved = editor.call(aten.add.Tensor, rest, divisor)
    return editor.call(aten.where.self, _wrong(editor, rest, divisor), moved, rest)


def _wrong(editor: GraphEditor, rest: fx.Node, divisor: Any) -> fx.Node:
    """Where a remainder has another sign than its divisor: bool, of the remainder's shape."""
    below = editor.call(aten.lt.Scalar, rest, 0)
    if isinstance(divisor, int) and divisor > 0:
        return below
    above = editor.call(aten.gt.Scalar, rest, 0)
    if isinstance(divisor, int):
        return above
    return editor.call(aten.where.self, editor.call(aten.lt.Scalar, divisor, 0), above, below)
