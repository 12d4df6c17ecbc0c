"""A row written into a static cache as a choice between old and new values.

``cache.index_copy_(dim, position, row)``, the step of a static key-value cache, becomes ``aten.index_put``, which no
Vulkan runtime has: each layer would leave the delegate twice. ``where(arange == position, row, cache)`` is the same
tensor; only the choice, a bool for each element, is made on the CPU.
"""

from dataclasses import dataclass

import torch
from torch import fx
from torch.export import ExportedProgram

from vkfuse.rewrite.arguments import argument
from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.repairs.each import replace_each
from vkfuse.rewrite.repairs.notes import Repair

aten = torch.ops.aten


@dataclass(frozen=True, slots=True, kw_only=True)
class _Write:
    """`row`, of size 1 along `dimension`, written into `cache` at `position`, int [1]."""

    cache: fx.Node
    dimension: int
    position: fx.Node
    row: fx.Node


def cache_writes_as_choices(exported: ExportedProgram) -> tuple[ExportedProgram, tuple[Repair, ...]]:
    """Replace each write of one row at a computed position into a float tensor of static shape."""
    found = {n: w for n in exported.graph.nodes if (w := _index_copy(n) or _index_put(n)) is not None}
    return replace_each(
        exported,
        found,
        lambda editor, node: _choice(editor, found[node]),
        code="cache-writes-as-choices",
        detail="the runtime writes to no computed position",
    )


def _choice(editor: GraphEditor, write: _Write) -> fx.Node:
    shape, cache, position = (
        list(write.cache.meta["val"].shape),
        editor.node(write.cache),
        editor.node(write.position),
    )

    def chosen() -> fx.Node:
        rows = editor.constant(torch.arange(shape[write.dimension]), "cache.rows")
        along = [-1 if d == write.dimension else 1 for d in range(len(shape))]
        here = editor.call(aten.reshape.default, editor.call(aten.eq.Tensor, rows, position), along)
        return editor.call(aten.expand.default, here, shape)

    where = editor.once(("cache", position, tuple(shape), write.dimension), chosen)
    return editor.call(
        aten.where.self, where, editor.call(aten.expand.default, editor.node(write.row), shape), cache
    )


def _index_copy(node: fx.Node) -> _Write | None:
    if node.target != aten.index_copy.default:
        return None
    names = ("self", "dim", "index", "source")
    cache, dimension, position, row = (argument(node, i, name) for i, name in enumerate(names))
    return _checked(cache, dimension, position, row)


def _index_put(node: fx.Node) -> _Write | None:
    """``cache[:, :, position] = row``: one index tensor, whole dimensions before it."""
    if node.target != aten.index_put.default or argument(node, 3, "accumulate", default=False):
        return None
    cache, indices, row = (argument(node, i, name) for i, name in enumerate(("self", "indices", "values")))
    if any(index is not None for index in indices[:-1]):
        return None
    return _checked(cache, len(indices) - 1, indices[-1], row)


def _checked(cache: fx.Node, dimension: int, position: fx.Node, row: fx.Node) -> _Write | None:
    """The write, where its shapes are static, the position is one integer and the row fits."""
    target, index, source = (n.meta["val"] for n in (cache, position, row))
    if not target.dtype.is_floating_point or index.dtype == torch.bool or tuple(index.shape) != (1,):
        return None
    dimension %= target.ndim
    expected = [1 if d == dimension else size for d, size in enumerate(target.shape)]
    if not all(isinstance(size, int) for size in (*target.shape, *source.shape)):
        return None
    if not _expands_to(source.shape, expected):
        return None
    return _Write(cache=cache, dimension=dimension, position=position, row=row)


def _expands_to(shape: torch.Size, expected: list[int]) -> bool:
    """Whether a tensor of `shape` can be expanded to `expected`."""
    sizes = [1] * (len(expected) - len(shape)) + list(shape)
    return len(sizes) == len(expected) and all(a in {1, b} for a, b in zip(sizes, expected, strict=True))
