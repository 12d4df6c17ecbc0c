"""Rows at a position that is read off a tensor, as rows at a tensor of positions.

``x[start : start + n]`` with ``start = input_pos.item()`` reads by a number that only the run knows: ExecuTorch's passes
for Vulkan cannot trace it, and a delegate takes no such number. ``index_select(x, arange(n) + start)`` is the same tensor,
and ``index_copy`` the same write.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import torch
from torch import fx
from torch.export import ExportedProgram

from vkfuse.rewrite.arguments import argument
from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.repairs.each import replaces
from vkfuse.rewrite.repairs.notes import Repairs
from vkfuse.rewrite.repairs.numbers import ITEMS, as_tensor, is_read, only_asserted, positions

aten = torch.ops.aten


def unread_numbers_dropped(exported: ExportedProgram) -> Repairs:
    """Drop numbers off tensors of which nothing comes but assertions; ExecuTorch drops assertions too."""
    items = [n for n in exported.graph.nodes if n.target in ITEMS]
    found = {node: None for item in items for node in only_asserted(item)}
    if not found:
        return exported, ()
    editor = GraphEditor(exported)
    for node in sorted(found, reverse=True):
        editor.erase(node)
    return editor.finish(), ()


def positions_as_tensors(exported: ExportedProgram) -> Repairs:
    """Let tensors of positions say what is read, where a number off a tensor does; sizes must not depend on values."""
    reads = any(node.target in ITEMS for node in exported.graph.nodes)
    return _without_numbers(exported) if reads else (exported, ())


@replaces(code="positions-as-tensors", detail="no number is read off a tensor for them")
def _without_numbers(editor: GraphEditor, node: fx.Node) -> fx.Node | None:
    make = _MAKERS.get(node.target)
    return None if make is None else make(editor, node)


def _sliced(editor: GraphEditor, node: fx.Node) -> fx.Node | None:
    """``slice``, from a position on."""
    dim, step = argument(node, 1, "dim", 0), argument(node, 4, "step", 1)
    size = node.meta["val"].shape[dim]
    return _rows(editor, node, dim, argument(node, 2, "start"), size) if step == 1 else None


def _selected(editor: GraphEditor, node: fx.Node) -> fx.Node | None:
    """``select``, at a position."""
    dim = argument(node, 1, "dim")
    row = _rows(editor, node, dim, argument(node, 2, "index"), 1)
    return None if row is None else editor.call(aten.squeeze.dim, row, dim)


def _rows(editor: GraphEditor, node: fx.Node, dim: int, start: Any, size: Any) -> fx.Node | None:
    at = _at(editor, start, size)
    return at and editor.call(aten.index_select.default, argument(node, 0, "self"), dim, at)


def _written(editor: GraphEditor, node: fx.Node) -> fx.Node | None:
    """``slice_scatter``, from a position on."""
    rows, dim, step = argument(node, 1, "src"), argument(node, 2, "dim", 0), argument(node, 5, "step", 1)
    return _copied(editor, node, argument(node, 3, "start"), dim, rows) if step == 1 else None


def _row_written(editor: GraphEditor, node: fx.Node) -> fx.Node | None:
    """``select_scatter``, at a position."""
    row, dim, at = (argument(node, i, name) for i, name in ((1, "src"), (2, "dim"), (3, "index")))
    if not is_read(at):
        return None
    return _copied(editor, node, at, dim, editor.call(aten.unsqueeze.default, row, dim))


def _copied(editor: GraphEditor, node: fx.Node, start: Any, dim: int, rows: fx.Node) -> fx.Node | None:
    at = _at(editor, start, rows.meta["val"].shape[dim])
    return at and editor.call(aten.index_copy.default, argument(node, 0, "self"), dim, at, rows)


def _counted(editor: GraphEditor, node: fx.Node) -> fx.Node | None:
    """``arange``, from a position on."""
    value, step = node.meta["val"], argument(node, 2, "step", 1)
    whole = step == 1 and value.dtype == torch.int64
    return _at(editor, argument(node, 0, "start"), value.shape[0]) if whole else None


def _at(editor: GraphEditor, start: Any, size: Any) -> fx.Node | None:
    """Positions from a number off a tensor on."""
    known = editor.input_size(size) if is_read(start) else None
    return None if known is None else positions(editor, start, known)


def _computed(editor: GraphEditor, node: fx.Node) -> fx.Node | None:
    """Arithmetic on a tensor and a number."""
    first, term = argument(node, 0, "self"), argument(node, 1, "other")
    if not is_read(term) or node.kwargs or not first.meta["val"].ndim:
        return None
    return editor.call(_ARITHMETIC[node.target], first, as_tensor(editor, term))


_ARITHMETIC: Final[Mapping[Any, Any]] = {
    **{op: op for op in (aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor)},
    **{getattr(aten, n).Scalar: getattr(aten, n).Tensor for n in ("eq", "ne", "lt", "le", "gt", "ge")},
}
_MAKERS: Final[Mapping[Any, Callable[[GraphEditor, fx.Node], fx.Node | None]]] = {
    aten.slice.Tensor: _sliced,
    aten.select.int: _selected,
    aten.slice_scatter.default: _written,
    aten.select_scatter.default: _row_written,
    aten.arange.start: _counted,
    aten.arange.start_step: _counted,
    **dict.fromkeys(_ARITHMETIC, _computed),
}
