"""Columns taken from several tensors in turn, in four dimensions.

An interleaved rotary embedding ends in ``torch.stack([even, odd], -1).flatten(-2)``: five dimensions on the way, which
Vulkan tensors have not, so that each layer would leave the delegate. The rows of all leading dimensions can be one.
"""

from collections.abc import Sequence

import torch
from torch import fx
from torch.export import ExportedProgram

from vkfuse.rewrite.arguments import argument
from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.repairs.each import done
from vkfuse.rewrite.repairs.notes import Repairs

aten = torch.ops.aten

_VIEWS = (aten.view.default, aten.reshape.default, aten._unsafe_view.default, aten.flatten.using_ints)  # noqa: SLF001
_MOST = 4


def interleavings_in_four_dimensions(exported: ExportedProgram) -> Repairs:
    """Replace each view of more than four dimensions that tensors were stacked in along the last."""
    found = {n: parts for n in exported.graph.nodes if (parts := _stacked(n)) and _only_viewed(n)}
    editor = GraphEditor(exported)
    for node, parts in found.items():
        with editor.before(node):
            joined = _joined(editor, parts)
        for view in _views(node):
            with editor.before(view):
                editor.replace(view, editor.call(aten.reshape.default, joined, editor.sizes(view)))
    names, detail = (node.name for node in found), "four dimensions in place of five"
    return done(editor, names, code="interleavings-in-four-dimensions", detail=detail)


def _joined(editor: GraphEditor, parts: Sequence[fx.Node]) -> fx.Node:
    """The parts [.., columns] as [rows, columns, parts]."""
    columns = parts[0].meta["val"].shape[-1]
    single = [editor.call(aten.reshape.default, part, [-1, columns, 1]) for part in parts]
    return editor.call(aten.cat.default, single, -1)


def _stacked(node: fx.Node) -> Sequence[fx.Node]:
    """What `node` stacks along a fifth or later dimension, the last; nothing where it does something else."""
    if node.target not in {aten.stack.default, aten.cat.default}:
        return ()
    rank, parts = node.meta["val"].ndim, argument(node, 0, "tensors")
    if rank <= _MOST or argument(node, 1, "dim", 0) % rank != rank - 1:
        return ()
    if node.target == aten.cat.default:
        if not all(_adds_last(part) for part in parts):
            return ()
        parts = [argument(part, 0, "self") for part in parts]
    return parts if isinstance(parts[0].meta["val"].shape[-1], int) else ()


def _adds_last(part: fx.Node) -> bool:
    rank = part.meta["val"].ndim
    return part.target == aten.unsqueeze.default and argument(part, 1, "dim") % rank == rank - 1


def _views(node: fx.Node) -> list[fx.Node]:
    """What reads `node`, copies of it looked through."""
    readers: list[fx.Node] = []
    for user in node.users:
        readers += _views(user) if user.target == aten.clone.default else [user]
    return readers


def _only_viewed(node: fx.Node) -> bool:
    """Whether every reader is a view of at most four dimensions."""
    return all(user.target in _VIEWS and user.meta["val"].ndim <= _MOST for user in _views(node))
