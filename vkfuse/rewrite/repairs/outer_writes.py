"""Writes by index tensors for several dimensions, of which all but one count through the whole of theirs.

``cache[batches[:, None, None], heads[None, :, None], positions[None, None, :]] = rows`` writes rows along one dimension, as
``cache[:, :, positions] = rows`` does, which the other repairs of caches know.

``words.masked_scatter(mask.unsqueeze(-1).expand_as(words), images)`` takes the next number of `images` for each true
element of the mask, which a kernel of the CPU does one after the other. Where the mask has whole rows, they are rows of
both tensors, one above the other, looked up by a row's place: the sum of the mask up to it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from vkfuse.rewrite.constants import Constants
from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.operands import operand
from vkfuse.rewrite.repairs.each import replaces
from vkfuse.rewrite.repairs.writes import in_one_dimension

aten = torch.ops.aten


@dataclass(frozen=True, slots=True, kw_only=True)
class _Outer:
    """`axes`: of the index tensors' common shape, the axis of each indexed dimension, None for one place.

    `along` is the dimension that `positions` index; `rank` is that of the common shape.
    """

    axes: dict[int, int | None]
    along: int
    positions: fx.Node
    rank: int

    def layout(self, dimensions: int) -> list[int | None]:
        """Where each of the written tensor's `dimensions` is in the values, as torch lays them out; None for none."""
        together = max(self.axes) - min(self.axes) == len(self.axes) - 1
        first = min(self.axes) if together else 0
        others = iter([*range(first), *range(first + self.rank, dimensions - len(self.axes) + self.rank)])
        return [
            next(others)
            if d not in self.axes
            else None
            if self.axes[d] is None
            else first + (self.axes[d] or 0)
            for d in range(dimensions)
        ]


@replaces(
    aten.index_put.default,
    code="writes-along-one-dimension",
    detail="index tensors that count through whole dimensions",
)
def writes_along_one_dimension(
    editor: GraphEditor, node: fx.Node, x: fx.Node, indices: Sequence[fx.Node | None], values: torch.Tensor
) -> torch.Tensor | None:
    """Replace each write by several index tensors that one describes."""
    given = {d: index for d, index in enumerate(indices) if index is not None}
    outer = _outer(given, x.meta["val"].shape, editor.constants) if len(given) > 1 else None
    if outer is None:
        return None
    layout = outer.layout(x.meta["val"].ndim)
    rows = _rows(editor, values, layout, len(layout) - len(outer.axes) + outer.rank)
    positions = editor.tensor(in_one_dimension(outer.positions))
    flat = positions if positions.ndim == 1 else positions.reshape([-1])
    return editor.again(node, indices=[*(None,) * outer.along, flat], values=rows)


def _rows(editor: GraphEditor, values: torch.Tensor, layout: Sequence[int | None], rank: int) -> torch.Tensor:
    """`values`, which expand to `rank` dimensions, in the order of `layout`."""
    sizes = [*(1,) * (rank - values.ndim), *editor.sizes(values)]
    used = [at for at in layout if at is not None]
    if used != sorted(used):
        left = [at for at in range(rank) if at not in used]
        values = values.reshape(sizes).permute([*used, *left])
    return values.reshape([1 if at is None else sizes[at] for at in layout])


def _outer(given: dict[int, fx.Node], shape: Sequence[int], constants: Constants) -> _Outer | None:
    """What index tensors by their dimension come to, None where they are no outer product, or not as told above."""
    rank = max(index.meta["val"].ndim for index in given.values())
    axes = {d: _axis(index, rank) for d, index in given.items()}
    used = [axis for axis in axes.values() if axis is not None]
    along = [d for d, index in given.items() if not _counts(index, shape[d], constants)]
    if -1 in used or len(set(used)) != len(used) or len(along) != 1:
        return None
    return _Outer(axes=axes, along=along[0], positions=given[along[0]], rank=rank)


def _axis(index: fx.Node, rank: int) -> int | None:
    """The only axis of the common shape that an index tensor has; None for one of one element, -1 for any other."""
    value = index.meta["val"]
    long = [rank - value.ndim + d for d, size in enumerate(value.shape) if str(size) != "1"]
    if value.dtype == torch.bool or len(long) > 1:
        return -1
    return long[0] if long else None


def _counts(index: fx.Node, size: int, constants: Constants) -> bool:
    """Whether a constant is each place of a dimension of `size` in turn."""
    if index not in constants:
        return False
    value = constants.value(index).reshape(-1)
    return len(value) == size and bool((value == torch.arange(size)).all())


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
