"""Indices that count from the end, as ones that count from the start."""

from typing import TYPE_CHECKING, Any

from torch import fx, ops

if TYPE_CHECKING:
    from vkfuse.rewrite.editor import GraphEditor

aten = ops.aten


def wrapped(editor: "GraphEditor", indices: fx.Node, size: Any) -> fx.Node:
    """Negative `indices` plus `size`. Not by remainder: ExecuTorch's kernel takes the sign of C on integers."""
    negative = editor.call(aten.lt.Scalar, indices, 0)
    return editor.call(aten.where.self, negative, editor.call(aten.add.Tensor, indices, size), indices)
