"""Writes by index tensors for several dimensions, of which all but one count through the whole of theirs.

``cache[batches[:, None, None], heads[None, :, None], positions[None, None, :]] = rows`` writes rows along one dimension, as
``cache[:, :, positions] = rows`` does, which the other repairs of caches know.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import fx

from vkfuse.rewrite.constants import Constants
from vkfuse.rewrite.editor import GraphEditor
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
