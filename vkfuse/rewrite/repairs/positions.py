"""Rows at a position that is read off a tensor, as rows at a tensor of positions.

``x[start : start + n]`` with ``start = input_pos.item()`` reads by a number that only the run knows: ExecuTorch's passes
for Vulkan cannot trace it, and a delegate takes no such number. ``index_select(x, arange(n) + start)`` is the same tensor,
and ``index_copy`` the same write.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, TypeAlias

import torch
from torch import fx
from torch.export import ExportedProgram

from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.operands import operands
from vkfuse.rewrite.repairs.each import Repairs, replaces
from vkfuse.rewrite.repairs.numbers import (
    ITEMS,
    as_tensor,
    is_read,
    may_be_negative,
    only_asserted,
    positions,
)
from vkfuse.rewrite.traced import wrapped

aten = torch.ops.aten

_Operands: TypeAlias = Mapping[str, Any]
_ASSERTIONS: Final = frozenset([aten._assert_async.msg, aten._assert_async.default])  # noqa: SLF001 - the operator's names


def assertions_dropped(exported: ExportedProgram) -> Repairs:
    """Drop what is asserted of tensors' values: ExecuTorch drops it too, but keeps what was computed for it."""
    return _without(exported, [n for n in exported.graph.nodes if n.target in _ASSERTIONS])


def unread_numbers_dropped(exported: ExportedProgram) -> Repairs:
    """Drop numbers off tensors of which nothing comes but assertions; ExecuTorch drops assertions too."""
    items = [n for n in exported.graph.nodes if n.target in ITEMS]
    return _without(exported, {node: None for item in items for node in only_asserted(item)})


def _without(exported: ExportedProgram, nodes: Collection[fx.Node]) -> Repairs:
    if not nodes:
        return exported, ()
    editor = GraphEditor(exported)
    for node in sorted(nodes, reverse=True):
        editor.erase(node)
    return editor.finish(), ()


def positions_as_tensors(exported: ExportedProgram) -> Repairs:
    """Let tensors of positions say what is read, where a number off a tensor does; sizes must not depend on values."""
    reads = any(node.target in ITEMS for node in exported.graph.nodes)
    return _without_numbers(exported) if reads else (exported, ())


@replaces(code="positions-as-tensors", detail="no number is read off a tensor for them")
def _without_numbers(editor: GraphEditor, node: fx.Node) -> torch.Tensor | None:
    make = _MAKERS.get(node.target)
    return None if make is None else make(editor, node, operands(node))


def _sliced(editor: GraphEditor, node: fx.Node, of: _Operands) -> torch.Tensor | None:
    """``slice``, from a position on."""
    size = node.meta["val"].shape[of["dim"]]
    return _rows(editor, of, of["start"], size) if of["step"] == 1 else None


def _selected(editor: GraphEditor, _node: fx.Node, of: _Operands) -> torch.Tensor | None:
    """``select``, at a position."""
    row = _rows(editor, of, of["index"], 1)
    return None if row is None else row.squeeze(of["dim"])


def _rows(editor: GraphEditor, of: _Operands, start: Any, size: Any) -> torch.Tensor | None:
    at = _place(editor, of, start, size)
    return None if at is None else editor.tensor(of["x"]).index_select(of["dim"], at)


def _written(editor: GraphEditor, _node: fx.Node, of: _Operands) -> torch.Tensor | None:
    """``slice_scatter``, from a position on."""
    return _copied(editor, of, of["start"], editor.tensor(of["src"])) if of["step"] == 1 else None


def _row_written(editor: GraphEditor, _node: fx.Node, of: _Operands) -> torch.Tensor | None:
    """``select_scatter``, at a position."""
    if not is_read(of["index"]):
        return None
    return _copied(editor, of, of["index"], editor.tensor(of["src"]).unsqueeze(of["dim"]))


def _copied(editor: GraphEditor, of: _Operands, start: Any, rows: torch.Tensor) -> torch.Tensor | None:
    at = _place(editor, of, start, rows.shape[of["dim"]])
    return None if at is None else editor.tensor(of["x"]).index_copy(of["dim"], at, rows)


def _place(editor: GraphEditor, of: _Operands, start: Any, size: Any) -> torch.Tensor | None:
    """Places along a dimension, counted from its start."""
    at = _at(editor, start, size)
    return at if at is None or not may_be_negative(start) else wrapped(at, editor.sizes(of["x"])[of["dim"]])


def _counted(editor: GraphEditor, node: fx.Node, of: _Operands) -> torch.Tensor | None:
    """``arange``, from a position on."""
    value = node.meta["val"]
    whole = of.get("step", 1) == 1 and value.dtype == torch.int64
    return _at(editor, of["start"], value.shape[0]) if whole else None


def _at(editor: GraphEditor, start: Any, size: Any) -> torch.Tensor | None:
    """Positions from a number off a tensor on."""
    known = editor.input_size(size) if is_read(start) else None
    return None if known is None else positions(editor, start, known)


def _computed(editor: GraphEditor, node: fx.Node, of: _Operands) -> torch.Tensor | None:
    """Arithmetic on a tensor and a number."""
    if not is_read(of["other"]) or node.kwargs or not of["x"].meta["val"].ndim:
        return None
    packet: Any = node.target.overloadpacket  # type: ignore[union-attr]
    return packet(editor.tensor(of["x"]), as_tensor(editor, of["other"]))  # type: ignore[no-any-return]


_MAKERS: Final[Mapping[Any, Callable[[GraphEditor, fx.Node, _Operands], torch.Tensor | None]]] = {
    aten.slice.Tensor: _sliced,
    aten.select.int: _selected,
    aten.slice_scatter.default: _written,
    aten.select_scatter.default: _row_written,
    aten.arange.start: _counted,
    aten.arange.start_step: _counted,
    **dict.fromkeys((aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor), _computed),
    **{getattr(aten, name).Scalar: _computed for name in ("eq", "ne", "lt", "le", "gt", "ge")},
}
