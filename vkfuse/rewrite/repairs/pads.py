"""Circular padding as a concatenation of slices.

Decomposed, it is an empty tensor that slices are written into, which leaves the delegate: no runtime has ``slice_scatter``.
"""

from torch import fx, ops

from vkfuse.rewrite.arguments import argument
from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.repairs.each import replaces

aten = ops.aten


@replaces(
    aten.pad.default,
    code="circular-padding-concatenated",
    detail="what stands at the other end, concatenated",
)
def circular_pads_as_concatenation(editor: GraphEditor, node: fx.Node) -> fx.Node | None:
    """Replace each circular padding by static, positive widths."""
    x, widths = argument(node, 0, "self"), argument(node, 1, "pad")
    if argument(node, 2, "mode") != "circular" or not all(type(n) is int and n >= 0 for n in widths):
        return None
    for i in range(0, len(widths), 2):
        dimension = node.meta["val"].ndim - 1 - i // 2
        x = _around(editor, x, dimension, before=widths[i], after=widths[i + 1])
    return x  # type: ignore[no-any-return]


def _around(editor: GraphEditor, x: fx.Node, dimension: int, *, before: int, after: int) -> fx.Node:
    parts = [x]
    if before:
        parts.insert(0, editor.call(aten.slice.Tensor, x, dimension, -before))
    if after:
        parts.append(editor.call(aten.slice.Tensor, x, dimension, 0, after))
    return editor.call(aten.cat.default, parts, dimension) if len(parts) > 1 else x
