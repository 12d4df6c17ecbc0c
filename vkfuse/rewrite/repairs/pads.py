"""Circular padding as a concatenation of slices.

Decomposed, it is an empty tensor that slices are written into, which leaves the delegate: no runtime has ``slice_scatter``.
"""

from torch import fx, ops
from torch.export import ExportedProgram

from vkfuse.rewrite.arguments import argument
from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.repairs.each import replace_each
from vkfuse.rewrite.repairs.notes import Repair

aten = ops.aten

_MODE = 2


def circular_pads_as_concatenation(exported: ExportedProgram) -> tuple[ExportedProgram, tuple[Repair, ...]]:
    """Replace each circular padding by static, positive widths."""
    found = [n for n in exported.graph.nodes if n.target == aten.pad.default and _is_circular(n)]
    detail = "what stands at the other end, concatenated"
    return replace_each(exported, found, _concatenated, code="circular-padding-concatenated", detail=detail)


def _is_circular(node: fx.Node) -> bool:
    widths = argument(node, 1, "pad")
    return argument(node, _MODE, "mode") == "circular" and all(type(n) is int and n >= 0 for n in widths)


def _concatenated(editor: GraphEditor, node: fx.Node) -> fx.Node:
    x, widths = editor.node(argument(node, 0, "self")), argument(node, 1, "pad")
    for i in range(0, len(widths), 2):
        dimension = node.meta["val"].ndim - 1 - i // 2
        x = _around(editor, x, dimension, before=widths[i], after=widths[i + 1])
    return x


def _around(editor: GraphEditor, x: fx.Node, dimension: int, *, before: int, after: int) -> fx.Node:
    parts = [x]
    if before:
        parts.insert(0, editor.call(aten.slice.Tensor, x, dimension, -before))
    if after:
        parts.append(editor.call(aten.slice.Tensor, x, dimension, 0, after))
    return editor.call(aten.cat.default, parts, dimension) if len(parts) > 1 else x
