"""Rows of one tensor put into another where a mask has them, in their order: images among the words of a text.

``words.masked_scatter(mask.unsqueeze(-1).expand_as(words), images)`` takes the next number of `images` for each true
element of the mask, which a kernel of the CPU does one after the other. Where the mask has whole rows, they are rows of
both tensors, one above the other, looked up by a row's place: the sum of the mask up to it.
"""

from typing import Any

import torch
from torch import fx

from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.operands import operand
from vkfuse.rewrite.repairs.each import replaces

aten = torch.ops.aten


@replaces(
    aten.masked_scatter.default,
    code="scattered-rows-looked-up",
    detail="the runtime takes rows by their places, and none by a mask",
)
def scattered_rows_looked_up(
    editor: GraphEditor, x: torch.Tensor, mask: fx.Node, source: torch.Tensor
) -> torch.Tensor | None:
    """Replace each scatter of whole rows of floats."""
    spread = operand(mask, "x") if mask.target == aten.expand.default else mask
    if not _is_of_rows(spread.meta["val"].shape, x.shape) or not _has_rows_like(source, x):
        return None
    both = torch.cat([part.reshape([-1, x.shape[-1]]) for part in (x, source)])
    taken: torch.Tensor = aten.index.Tensor(both, [_places(editor, editor.tensor(spread))])
    return taken.reshape(editor.sizes(x))


def _is_of_rows(mask: torch.Size, base: torch.Size) -> bool:
    """Whether a mask has one element for each row of `base`: its sizes, and one for the columns."""
    whole = len(mask) == len(base) > 1 and mask[-1] == 1 and isinstance(base[-1], int)
    return whole and list(map(str, mask[:-1])) == list(map(str, base[:-1]))


def _has_rows_like(source: torch.Tensor, base: torch.Tensor) -> bool:
    return source.ndim > 1 and str(source.shape[-1]) == str(base.shape[-1]) and base.is_floating_point()


def _places(editor: GraphEditor, mask: torch.Tensor) -> torch.Tensor:
    """For each row where it is: in its own place, or the next one behind them all."""
    chosen = mask.reshape([-1])
    count: Any = chosen.shape[0]
    following = chosen.to(torch.int64).cumsum(0)
    if isinstance(count, int):
        return torch.where(
            chosen, aten.add.Scalar(following, count - 1), editor.stored(torch.arange(count), "rows")
        )
    size = editor.call(aten.sym_size.int, chosen, 0)
    behind = aten.add.Scalar(aten.sub.Scalar(following, 1), size)
    return torch.where(chosen, behind, editor.arange(size))
