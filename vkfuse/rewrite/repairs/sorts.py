"""Sorts: no library of ExecuTorch has a kernel of them, but of ``topk``, which orders what it returns."""

import operator
from typing import Any, Final

import torch
from torch import fx

from vkfuse.rewrite.arguments import argument
from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.repairs.each import replaces

aten = torch.ops.aten

_SORTS: Final = (aten.sort.default, aten.sort.stable)
_ARGSORTS: Final = (aten.argsort.default, aten.argsort.stable)
_APART: Final = 1 << 32  # more than there are values
_END: Final = (1 << 63) - 1


@replaces(operator.getitem, *_ARGSORTS, code="sorts-as-topk", detail="no kernel sorts, topk orders")
def sorts_as_topk(editor: GraphEditor, node: fx.Node) -> fx.Node | None:
    """Replace each result of a sort by the largest, or smallest, of as many as there are, equal ones in their order."""
    sort, which = (node, 1) if node.target in _ARGSORTS else node.args
    if not isinstance(sort, fx.Node) or sort.target not in (*_SORTS, *_ARGSORTS):
        return None
    source, dim = argument(sort, 0, "self"), _option(sort, "dim", -1)
    if not source.meta["val"].ndim or source.meta["val"].dtype is torch.bool:
        return None
    size = editor.sizes(source)[dim % source.meta["val"].ndim]
    both = editor.call(aten.topk.default, source, size, dim, _option(sort, "descending", False), True)
    values = editor.call(operator.getitem, both, 0)
    return _places(editor, values, editor.call(operator.getitem, both, 1), dim, size) if which else values


def _option(sort: fx.Node, name: str, default: Any) -> Any:
    names = [of.name for of in sort.target._schema.arguments]  # type: ignore[union-attr]  # noqa: SLF001
    return argument(sort, names.index(name), name, default)


def _places(editor: GraphEditor, values: fx.Node, places: fx.Node, dim: int, size: Any) -> fx.Node:
    """The places of ordered values, of equal ones in ascending order: a second order, of integers that differ."""
    after, before = (
        editor.call(aten.slice.Tensor, values, dim, start, end) for start, end in ((1, _END), (0, -1))
    )
    steps = editor.cast(editor.call(aten.ne.Tensor, after, before), torch.int64)
    first = editor.call(aten.mul.Tensor, editor.call(aten.slice.Tensor, places, dim, 0, 1), 0)
    groups = editor.call(aten.cumsum.default, editor.call(aten.cat.default, [first, steps], dim), dim)
    keys = editor.call(aten.add.Tensor, editor.call(aten.mul.Tensor, groups, _APART), places)
    ordered = editor.call(aten.topk.default, keys, size, dim, False, True)
    return editor.call(aten.remainder.Scalar, editor.call(operator.getitem, ordered, 0), _APART)
