"""Indices counted from the start: no shader, and not the portable ``gather``, counts negative ones from the end.

``x[positions]`` and ``take_along_dim`` may get them. What an embedding or a ``gather`` looks up may not: torch refuses it.
"""

import operator
from typing import Any, Final

import torch
from torch import fx

from vkfuse.rewrite.arguments import argument
from vkfuse.rewrite.constants import Constants
from vkfuse.rewrite.editor import GraphEditor
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
_MOVES: Final = frozenset(
    [
        *(aten.view.default, aten.reshape.default, aten.expand.default, aten.clone.default),
        *(aten.unsqueeze.default, aten.squeeze.dim, aten.select.int, aten.slice.Tensor),
        *(aten.permute.default, aten.transpose.int, aten.flatten.using_ints, aten._to_copy.default),  # noqa: SLF001
    ]
)  # values of the first argument, and no others


@replaces(
    *(aten.index.Tensor, aten.index_put.default),
    code="indices-from-the-start",
    detail="the runtime counts no index from the end",
)
def indices_from_the_start(editor: GraphEditor, node: fx.Node) -> fx.Node | None:
    """Wrap what may be negative in an index along one dimension, of what is read or of a cache that is written."""
    source, indices = argument(node, 0, "self"), argument(node, 1, "indices")
    given = [axis for axis, index in enumerate(indices) if index is not None]
    if (
        node in editor.constants
        or len(given) != 1
        or not _may_be_negative(indices[given[0]], editor.constants)
    ):
        return None
    (axis,) = given
    positive = wrapped(editor, indices[axis], editor.sizes(source)[axis])
    return editor.call(node.target, source, [None] * axis + [positive], *node.args[2:], **node.kwargs)


def _may_be_negative(index: fx.Node, constants: Constants) -> bool:
    value = constants.value(index) if index in constants else index.meta["val"]
    if value.dtype not in _SIGNED:
        return value.is_floating_point()  # made whole
    if index in constants:
        return bool((value < 0).any())
    if index.target in _MOVES:
        return _may_be_negative(argument(index, 0, "self"), constants)
    made, which = index.args if index.target is operator.getitem else (index, 1)
    return not (which == 1 and isinstance(made, fx.Node) and made.target in _PLACES)


@replaces(
    aten.take_along_dim.default,
    code="indices-from-the-start",
    detail="the runtime counts no index from the end",
)
def taken_by_gathering(editor: GraphEditor, node: fx.Node) -> fx.Node | None:
    """Take along a dimension by gathering, source and indices expanded to each other elsewhere, as torch does it."""
    source, indices, dim = (argument(node, i, name) for i, name in enumerate(("self", "indices", "dim")))
    if dim is None or node in editor.constants:
        return None
    axis, sizes, wanted = dim % source.meta["val"].ndim, editor.sizes(source), editor.sizes(indices)
    common = [there if here == 1 else here for here, there in zip(sizes, wanted, strict=True)]
    spread = [
        _expanded(editor, part, of, [*common[:axis], of[axis], *common[axis + 1 :]])
        for part, of in ((source, sizes), (wrapped(editor, indices, sizes[axis]), wanted))
    ]
    return editor.call(aten.gather.default, spread[0], axis, spread[1])


def _expanded(editor: GraphEditor, part: fx.Node, sizes: list[Any], wanted: list[Any]) -> fx.Node:
    return part if sizes == wanted else editor.call(aten.expand.default, part, wanted)
