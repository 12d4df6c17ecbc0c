"""A row written into a static cache as a choice between old and new values.

``cache.index_copy_(dim, position, row)``, the step of a static key-value cache, becomes ``aten.index_put``, which no
Vulkan runtime has: each layer would leave the delegate twice. ``where(arange == position, row, cache)`` is the same
tensor; only the choice, a bool for each element, is made on the CPU. in_place.py does better with state of the program's
own.
"""

import torch
from torch import fx

from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.repairs.each import replaces
from vkfuse.rewrite.repairs.writes import write_of

aten = torch.ops.aten


@replaces(code="cache-writes-as-choices", detail="the runtime writes to no computed position")
def cache_writes_as_choices(editor: GraphEditor, node: fx.Node) -> torch.Tensor | None:
    """Replace each write of one row at a computed position into a float tensor of static shape."""
    write = write_of(node)
    if write is None or not write.one or not node.meta["val"].is_floating_point():
        return None
    shape, position = list(write.cache.meta["val"].shape), editor.node(write.positions)

    def chosen() -> torch.Tensor:
        rows = editor.stored(torch.arange(shape[write.dimension]), "cache.rows")
        along = [-1 if d == write.dimension else 1 for d in range(len(shape))]
        return rows.eq(editor.tensor(position)).reshape(along).expand(shape)

    where = editor.once(("cache", position, tuple(shape), write.dimension), chosen)
    written = editor.tensor(write.rows).expand(shape)
    return torch.where(where, written, editor.tensor(write.cache))
