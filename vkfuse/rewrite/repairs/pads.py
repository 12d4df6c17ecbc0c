"""What goes over an edge, as a concatenation of slices: padding with the tensor's own values, and rolls.

Decomposed, circular padding is an empty tensor that slices are written into, which leaves the delegate: no runtime has
``slice_scatter``. The others become indices along a later axis, computed anew with each call.
"""

from typing import Final

from torch import fx, ops

from vkfuse.rewrite.arguments import argument
from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.repairs.each import replaces

aten = ops.aten

_MOST: Final = 16  # copies of an edge
_END: Final = (1 << 63) - 1


@replaces(aten.pad.default, code="padding-concatenated", detail="what is repeated, concatenated")
def pads_as_concatenation(editor: GraphEditor, node: fx.Node) -> fx.Node | None:
    """Replace each padding by the other end, by a reflection, or by few copies of the edge: static, positive widths."""
    x, widths = argument(node, 0, "self"), argument(node, 1, "pad")
    mode = argument(node, 2, "mode")
    most = _MOST if mode == "replicate" else _END
    if mode not in _BEYOND or not all(type(n) is int and 0 <= n <= most for n in widths):
        return None
    for i in range(0, len(widths), 2):
        dimension, (before, after) = node.meta["val"].ndim - 1 - i // 2, widths[i : i + 2]
        front = _BEYOND[mode](editor, x, dimension, -before) if before else []
        back = _BEYOND[mode](editor, x, dimension, after) if after else []
        if front or back:
            x = editor.call(aten.cat.default, [*front, x, *back], dimension)
    return x  # type: ignore[no-any-return]


def _other_end(editor: GraphEditor, x: fx.Node, dimension: int, width: int) -> list[fx.Node]:
    """What stands in front of x (a negative width) or behind it: the values of its other end."""
    return [_slice(editor, x, dimension, *((width, _END) if width < 0 else (0, width)))]


def _mirror(editor: GraphEditor, x: fx.Node, dimension: int, width: int) -> list[fx.Node]:
    """The values beside the edge, which itself is not repeated, in reverse."""
    part = _slice(editor, x, dimension, *((1, 1 - width) if width < 0 else (-1 - width, -1)))
    return [part if abs(width) == 1 else editor.call(aten.flip.default, part, [dimension])]


def _edge(editor: GraphEditor, x: fx.Node, dimension: int, width: int) -> list[fx.Node]:
    return [_slice(editor, x, dimension, *((0, 1) if width < 0 else (-1, _END)))] * abs(width)


_BEYOND: Final = {"circular": _other_end, "reflect": _mirror, "replicate": _edge}


def _slice(editor: GraphEditor, x: fx.Node, dimension: int, start: int, end: int) -> fx.Node:
    return editor.call(aten.slice.Tensor, x, dimension, start, end)


@replaces(aten.roll.default, code="rolls-concatenated", detail="both parts, the other way round")
def rolls_as_concatenation(editor: GraphEditor, node: fx.Node) -> fx.Node | None:
    """Replace each roll along static dimensions."""
    x, shifts, dims = argument(node, 0, "self"), argument(node, 1, "shifts"), argument(node, 2, "dims", [])
    sizes = [node.meta["val"].shape[d] for d in dims]
    if not sizes or not all(type(n) is int for n in (*sizes, *shifts)) or 0 in sizes:
        return None
    for dimension, shift, size in zip(dims, shifts, sizes, strict=True):
        if shift % size:
            ends = (-(shift % size), _END), (0, -(shift % size))
            x = editor.call(aten.cat.default, [_slice(editor, x, dimension, *e) for e in ends], dimension)
    return x  # type: ignore[no-any-return]
