"""Rows written into a static cache as a choice between old and new values, or as a product.

``cache.index_copy_(dim, position, row)``, the step of a static key-value cache, becomes ``aten.index_put``, which no
Vulkan runtime has: each layer would leave the delegate twice. ``where(arange == position, row, cache)`` is the same
tensor; only the choice, a bool for each element, is made on the CPU. in_place.py does better with state of the program's
own.

Several rows at positions that nobody knows to follow each other are ``cache * kept + places @ rows``: `places` is one where
a row of the cache is a position, `kept` where it is none. Ones and zeros keep every finite value. One row at all of
them is a choice by whether any position reaches a row of the cache: positions may repeat, and the row may be infinite.
"""

from collections.abc import Callable
from math import prod

import torch
from torch import fx

from vkfuse.program.tensors import greatest
from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.operands import operand
from vkfuse.rewrite.repairs.each import replaces
from vkfuse.rewrite.repairs.writes import Write, write_of

aten = torch.ops.aten


@replaces(code="cache-writes-as-choices", detail="the runtime writes to no computed position")
def cache_writes_as_choices(editor: GraphEditor, node: fx.Node) -> torch.Tensor | None:
    """Replace each write of one row at computed positions into a float tensor of static shape."""
    write = write_of(node)
    row = _same_row(editor, write) if write and node.meta["val"].is_floating_point() else None
    if write is None or row is None:
        return None
    return torch.where(_reached(editor, write, torch.amax) > 0, row, editor.tensor(write.cache))


@replaces(code="cache-writes-as-products", detail="the runtime writes to no computed positions")
def cache_writes_as_products(editor: GraphEditor, node: fx.Node) -> torch.Tensor | None:
    """Replace each write of several rows at computed positions into a float tensor of static shape."""
    write = write_of(node)
    if write is None or not node.meta["val"].is_floating_point() or _must_repeat(write):
        return None
    cache, at, reached = editor.tensor(write.cache), write.dimension, _reached(editor, write, torch.sum)
    kept: torch.Tensor = editor.once(("kept", id(reached)), lambda: 1.0 - reached)
    order = [at, *(d for d in range(cache.ndim) if d != at)]
    (count,) = editor.sizes(write.positions)
    rows = write.in_full(editor).permute(order).reshape([count, prod(cache.shape) // cache.shape[at]])
    written = (_places(editor, write) @ rows).reshape([cache.shape[d] for d in order])
    return cache * kept + written.permute([order.index(d) for d in range(cache.ndim)])


def _reached(editor: GraphEditor, write: Write, over: Callable[..., torch.Tensor]) -> torch.Tensor:
    """How many of the positions reach each row of the cache, or `over` amax whether any does: [1, .., rows, .., 1]."""
    value = write.cache.meta["val"]
    along = [-1 if d == write.dimension else 1 for d in range(value.ndim)]
    places = _places(editor, write)
    reached: torch.Tensor = editor.once(
        ("reached", id(places), over, *along),
        lambda: (places if write.one else over(places, [1], keepdim=True)).reshape(along),
    )
    return reached


def _same_row(editor: GraphEditor, write: Write) -> torch.Tensor | None:
    """What is written at every position, where that is one row, [..., 1, ...] or without the dimension; else None.

    Its positions may repeat, as those of `index_fill`; of different rows at one position torch promises none.
    """
    at, rows = write.dimension - write.cache.meta["val"].ndim, write.rows
    while rows.target == aten.expand.default and not _is_one_row(rows, at):
        rows = operand(rows, "x")
    if _is_one_row(rows, at):
        return editor.tensor(rows)
    value = editor.constants.value(rows) if rows in editor.constants else None
    if value is None or not bool((value == value.narrow(at, 0, 1)).all()):
        return None
    return editor.stored(value.narrow(at, 0, 1).clone(), "cache.row")


def _is_one_row(rows: fx.Node, at: int) -> bool:
    sizes = rows.meta["val"].shape
    return len(sizes) < -at or str(sizes[at]) == "1"


def _must_repeat(write: Write) -> bool:
    """Whether rows may be more than the cache has, as of a ring: torch keeps the last of those at one position."""
    (count,) = write.positions.meta["val"].shape
    return bool(greatest(count) > write.cache.meta["val"].shape[write.dimension])


def _places(editor: GraphEditor, write: Write) -> torch.Tensor:
    """One where a row of the cache is one of the S positions, else zero: [rows, S]."""
    value, positions = write.cache.meta["val"], editor.node(write.positions)
    count = value.shape[write.dimension]

    def places() -> torch.Tensor:
        rows = editor.stored(torch.arange(count)[:, None], "cache.rows")
        return rows.eq(editor.tensor(positions)).to(value.dtype)

    return editor.once(("places", positions, count, value.dtype), places)  # type: ignore[no-any-return]
