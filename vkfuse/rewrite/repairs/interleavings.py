"""Columns taken from several tensors in turn, in four dimensions.

An interleaved rotary embedding ends in ``torch.stack([even, odd], -1).flatten(-2)``: five dimensions on the way, which
Vulkan tensors have not, so that each layer would leave the delegate. The rows of all leading dimensions can be one.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import fx
from torch.export import ExportedProgram

from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.moves import VIEWS, readers
from vkfuse.rewrite.operands import operand
from vkfuse.rewrite.repairs.each import done
from vkfuse.rewrite.repairs.notes import Repairs

aten = torch.ops.aten

_MOST = 4


def interleavings_in_four_dimensions(exported: ExportedProgram) -> Repairs:
    """Replace each view of more than four dimensions that tensors were stacked in along the last."""
    found = {n: parts for n in exported.graph.nodes if (parts := _stacked(n)) and _only_viewed(n)}
    editor = GraphEditor(exported)
    for node, parts in found.items():
        with editor.before(node):
            columns = parts[0].meta["val"].shape[-1]
            joined = torch.cat([editor.tensor(part).reshape([-1, columns, 1]) for part in parts], -1)
        for view in _views(node):
            with editor.before(view):
                editor.replace(view, joined.reshape(editor.sizes(view)))
    names, detail = (node.name for node in found), "four dimensions in place of five"
    return done(editor, names, code="interleavings-in-four-dimensions", detail=detail)


def _stacked(node: fx.Node) -> Sequence[fx.Node]:
    """What `node` stacks along a fifth or later dimension, the last; nothing where it does something else."""
    if node.target not in {aten.stack.default, aten.cat.default}:
        return ()
    rank, parts = node.meta["val"].ndim, operand(node, "tensors")
    if rank <= _MOST or operand(node, "dim") % rank != rank - 1:
        return ()
    if node.target == aten.cat.default:
        if not all(_adds_last(part) for part in parts):
            return ()
        parts = [operand(part, "x") for part in parts]
    return parts if isinstance(parts[0].meta["val"].shape[-1], int) else ()


def _adds_last(part: fx.Node) -> bool:
    rank = part.meta["val"].ndim
    return part.target == aten.unsqueeze.default and operand(part, "dim") % rank == rank - 1


def _views(node: fx.Node) -> Iterator[fx.Node]:
    return readers(node, {aten.clone.default})


def _only_viewed(node: fx.Node) -> bool:
    """Whether every reader, copies looked through, is a view of at most four dimensions."""
    return all(user.target in VIEWS and user.meta["val"].ndim <= _MOST for user in _views(node))
