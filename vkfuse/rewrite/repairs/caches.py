"""A row written into a static cache as a choice between old and new values.

``cache.index_copy_(dim, position, row)``, the step of a static key-value cache, becomes ``aten.index_put``, which no
Vulkan runtime has: each layer would leave the delegate twice. ``where(arange == position, row, cache)`` is the same
tensor; only the choice, a bool for each element, is made on the CPU. in_place.py does better with state of the program's
own.
"""

import torch
from torch import fx
from torch.export import ExportedProgram

from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.repairs.each import replace_each
from vkfuse.rewrite.repairs.notes import Repair
from vkfuse.rewrite.repairs.writes import Write, write_of

aten = torch.ops.aten


def cache_writes_as_choices(exported: ExportedProgram) -> tuple[ExportedProgram, tuple[Repair, ...]]:
    """Replace each write of one row at a computed position into a float tensor of static shape."""
    found = {n: w for n in exported.graph.nodes if (w := write_of(n)) is not None and w.one}
    return replace_each(
        exported,
        found,
        lambda editor, node: _choice(editor, found[node]),
        code="cache-writes-as-choices",
        detail="the runtime writes to no computed position",
    )


def _choice(editor: GraphEditor, write: Write) -> fx.Node:
    shape, cache, position = (
        list(write.cache.meta["val"].shape),
        editor.node(write.cache),
        editor.node(write.positions),
    )

    def chosen() -> fx.Node:
        rows = editor.constant(torch.arange(shape[write.dimension]), "cache.rows")
        along = [-1 if d == write.dimension else 1 for d in range(len(shape))]
        here = editor.call(aten.reshape.default, editor.call(aten.eq.Tensor, rows, position), along)
        return editor.call(aten.expand.default, here, shape)

    where = editor.once(("cache", position, tuple(shape), write.dimension), chosen)
    return editor.call(
        aten.where.self, where, editor.call(aten.expand.default, editor.node(write.rows), shape), cache
    )
