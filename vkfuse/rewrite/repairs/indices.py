"""Indices counted from the start: no shader, and not the portable ``gather``, counts negative ones from the end.

``x[positions]`` and ``take_along_dim`` may get them. What an embedding or a ``gather`` looks up may not: torch refuses it.
"""

import operator
from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import fx

from vkfuse.rewrite.constants import Constants
from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.moves import MOVES
from vkfuse.rewrite.operands import operand
from vkfuse.rewrite.repairs.each import replaces
from vkfuse.rewrite.wrapping import wrapped

aten = torch.ops.aten

_SIGNED: Final = (torch.int8, torch.int16, torch.int32, torch.int64)
_PLACES: Final = frozenset(
    [
        *(aten.argmax.default, aten.argmin.default, aten.argsort.default, aten.arange.default),
        *(aten.topk.default, aten.sort.default),
    ]
)  # their integers are places in a tensor
_MOVED: Final = frozenset([*MOVES, aten.select.int, aten._to_copy.default])  # noqa: SLF001 - the operator's name


@replaces(
    *(aten.index.Tensor, aten.index_put.default),
    code="indices-from-the-start",
    detail="the runtime counts no index from the end",
)
def indices_from_the_start(
    editor: GraphEditor, node: fx.Node, x: fx.Node, indices: Sequence[fx.Node | None]
) -> torch.Tensor | None:
    """Wrap what may be negative in an index along one dimension, of what is read or of a cache that is written."""
    given = [(axis, index) for axis, index in enumerate(indices) if index is not None]
    if len(given) != 1 or node in editor.constants or not _may_be_negative(given[0][1], editor.constants):
        return None
    ((axis, index),) = given
    positive = wrapped(editor.tensor(index), editor.sizes(x)[axis])
    return editor.again(node, indices=[None] * axis + [positive])


def _may_be_negative(index: fx.Node, constants: Constants) -> bool:
    value = constants.value(index) if index in constants else index.meta["val"]
    if value.dtype not in _SIGNED:
        return value.is_floating_point()  # made whole
    if index in constants:
        return bool((value < 0).any())
    if index.target in _MOVED:
        return _may_be_negative(operand(index, "x"), constants)
    made, which = index.args if index.target is operator.getitem else (index, 1)
    return not (which == 1 and isinstance(made, fx.Node) and made.target in _PLACES)


@replaces(
    aten.take_along_dim.default,
    code="indices-from-the-start",
    detail="the runtime counts no index from the end",
)
def taken_by_gathering(
    editor: GraphEditor, node: fx.Node, x: torch.Tensor, indices: torch.Tensor, dim: int | None
) -> torch.Tensor | None:
    """Take along a dimension by gathering, source and indices expanded to each other elsewhere, as torch does it."""
    if dim is None or node in editor.constants:
        return None
    axis, sizes, wanted = dim % x.ndim, editor.sizes(x), editor.sizes(indices)
    common = [there if here == 1 else here for here, there in zip(sizes, wanted, strict=True)]
    source, index = (
        _expanded(part, of, [*common[:axis], of[axis], *common[axis + 1 :]])
        for part, of in ((x, sizes), (wrapped(indices, sizes[axis]), wanted))
    )
    return source.gather(axis, index)


def _expanded(part: torch.Tensor, sizes: list[Any], wanted: list[Any]) -> torch.Tensor:
    return part if sizes == wanted else part.expand(wanted)
