"""Rows of one tensor put into another where a mask has them, in their order: images among the words of a text.

``words.masked_scatter(mask.unsqueeze(-1).expand_as(words), images)`` takes the next number of `images` for each true
element of the mask, which a kernel of the CPU does one after the other. Where the mask has whole rows, they are rows of
both tensors, one above the other, looked up by a row's place: the sum of the mask up to it.
"""

import torch
from torch import fx

from vkfuse.rewrite.arguments import argument
from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.repairs.each import replaces

aten = torch.ops.aten


@replaces(
    aten.masked_scatter.default,
    code="scattered-rows-looked-up",
    detail="the runtime takes rows by their places, and none by a mask",
)
def scattered_rows_looked_up(editor: GraphEditor, node: fx.Node) -> fx.Node | None:
    """Replace each scatter of whole rows of floats."""
    base, source = argument(node, 0, "self"), argument(node, 2, "source")
    mask = _of_rows(argument(node, 1, "mask"), base)
    if mask is None or not _has_rows_like(source, base):
        return None
    *_, columns = base.meta["val"].shape
    rows, more = (editor.call(aten.reshape.default, part, [-1, columns]) for part in (base, source))
    both = editor.call(aten.cat.default, [rows, more])
    taken = editor.call(aten.index.Tensor, both, [_places(editor, mask)])
    return editor.call(aten.reshape.default, taken, editor.sizes(base))


def _of_rows(mask: fx.Node, base: fx.Node) -> fx.Node | None:
    """The mask [..., 1] of which `mask` is a row for each element, of the shape of `base` but for its columns."""
    if mask.target == aten.expand.default:
        mask = argument(mask, 0, "self")
    have, wanted = mask.meta["val"].shape, base.meta["val"].shape
    whole = len(have) == len(wanted) > 1 and have[-1] == 1 and isinstance(wanted[-1], int)
    return mask if whole and list(map(str, have[:-1])) == list(map(str, wanted[:-1])) else None


def _has_rows_like(source: fx.Node, base: fx.Node) -> bool:
    value, like = source.meta["val"], base.meta["val"]
    return value.ndim > 1 and str(value.shape[-1]) == str(like.shape[-1]) and like.is_floating_point()


def _places(editor: GraphEditor, mask: fx.Node) -> fx.Node:
    """For each row where it is: in its own place, or the next one behind them all."""
    chosen = editor.call(aten.reshape.default, mask, [-1])
    (count,) = chosen.meta["val"].shape
    following = editor.call(aten.cumsum.default, editor.cast(chosen, torch.int64), 0)
    if isinstance(count, int):
        own = editor.constant(torch.arange(count), "rows")
        behind = editor.call(aten.add.Scalar, following, count - 1)
    else:
        size = editor.call(aten.sym_size.int, chosen, 0)
        own = editor.call(aten.arange.default, size)
        behind = editor.call(aten.add.Scalar, editor.call(aten.sub.Scalar, following, 1), size)
    return editor.call(aten.where.self, chosen, behind, own)
