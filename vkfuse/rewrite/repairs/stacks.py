"""Parts of a linear's columns, told apart in four dimensions.

``linear(x).view(batch, rows, 3, heads, size).unbind(2)``, with or without a permutation between, goes through a fifth
dimension, which Vulkan tensors have not: each layer would leave the delegate. Part i of the view is a view of part i of
the last dimension; where heads stand in front of the three (BLOOM), of each head's columns. So do the pairs of an
interleaved rotary embedding, ``x.view(batch, rows, heads, -1, 2).unbind(-1)``: part i of them is every second column.
"""

from math import prod

import torch
from torch import fx

from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.moves import PERMUTATIONS, VIEWS, order_of
from vkfuse.rewrite.operands import operand
from vkfuse.rewrite.repairs.each import replaces
from vkfuse.rewrite.traced import END

aten = torch.ops.aten


@replaces(
    *(aten.select.int, aten.unbind.int), code="stacks-as-slices", detail="four dimensions in place of five"
)
def stacks_as_slices(
    editor: GraphEditor, node: fx.Node, which: int | None, x: fx.Node, dim: int
) -> torch.Tensor | None:
    """Replace each part that is taken out of a view of five dimensions or more, by itself or after a permutation."""
    index = operand(node, "index") if which is None else which
    view = operand(x, "x") if x.target in PERMUTATIONS else x
    if not isinstance(index, int) or not _splits_last(view):
        return None
    order, shape, source = order_of(x), view.meta["val"].shape, operand(view, "x")
    stacked, last, index = order[dim], source.meta["val"].ndim - 1, index % x.meta["val"].shape[dim]
    if stacked < last:
        return None
    rest = [int(size) for d, size in enumerate(shape) if d >= last and d != stacked]
    inner, outer = prod(shape[stacked + 1 :]), prod(shape[last:stacked])
    within = editor.tensor(source)
    if outer > 1 and inner > 1:
        within = within.reshape([-1, outer, shape[stacked] * inner])
    where = (index, END, int(shape[-1])) if inner == 1 else (index * inner, (index + 1) * inner)
    part: torch.Tensor = aten.slice.Tensor(within, within.ndim - 1, *where)
    if len(rest) > 1:
        part = part.reshape([*editor.sizes(source)[:last], *rest])
    order = [d - (d > stacked) for d in order if d != stacked]
    return part if order == sorted(order) else part.permute(order)


def _splits_last(view: fx.Node) -> bool:
    """Whether a view to five dimensions or more keeps all of its input's but the last, of static size, which it splits."""
    if view.target not in VIEWS or view.meta["val"].ndim <= 4:
        return False
    before, after = operand(view, "x").meta["val"].shape, view.meta["val"].shape
    lead = len(before) - 1
    static = all(isinstance(size, int) for size in (before[-1], *after[lead:]))
    return static and [str(s) for s in before[:-1]] == [str(s) for s in after[:lead]]
