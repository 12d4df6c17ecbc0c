"""Expansions of a dynamic tensor left to the arithmetic that reads them.

``aten.expand_copy`` keeps its largest size on Vulkan, so that a dynamic one stays on the CPU and splits the delegate.
Where only elementwise arithmetic with tensors of the full shape reads it, broadcasting does the same.
"""

import torch
from torch import fx
from torch.export import ExportedProgram

from vkfuse.rewrite.arguments import argument
from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.repairs.notes import Repair

aten = torch.ops.aten

_COPIES = (aten.clone.default, aten.contiguous.default)
_BROADCASTING = (aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor)


def expansions_as_broadcasts(exported: ExportedProgram) -> tuple[ExportedProgram, tuple[Repair, ...]]:
    """Let arithmetic broadcast what a dynamic expansion of floats would copy."""
    found = [n for n in exported.graph.nodes if _is_dynamic(n) and _only_broadcast(n)]
    if not found:
        return exported, ()
    editor = GraphEditor(exported)
    for node in found:
        for copy in _copies_of(node):
            editor.replace(copy, editor.node(argument(node, 0, "self")))
    names = tuple(n.name for n in found)
    return editor.finish(), (
        Repair(
            code="expansions-as-broadcasts", nodes=names, detail="an expansion is not resized by the runtime"
        ),
    )


def _is_dynamic(node: fx.Node) -> bool:
    if node.target != aten.expand.default:
        return False
    value, before = node.meta["val"], argument(node, 0, "self").meta["val"]
    symbolic = any(isinstance(size, torch.SymInt) for size in value.shape)
    return symbolic and value.dtype.is_floating_point and value.ndim == before.ndim


def _copies_of(node: fx.Node) -> list[fx.Node]:
    """`node` and every copy of it."""
    return [node, *(copy for user in node.users if user.target in _COPIES for copy in _copies_of(user))]


def _only_broadcast(node: fx.Node) -> bool:
    """Whether every reader of `node` and of its copies is arithmetic with another tensor of the same shape."""
    copies = _copies_of(node)
    readers = [user for copy in copies for user in copy.users if user not in copies]
    return bool(readers) and all(_broadcasts(reader, copies) for reader in readers)


def _broadcasts(reader: fx.Node, copies: list[fx.Node]) -> bool:
    others = [i for i in reader.all_input_nodes if i not in copies]
    shape = str(tuple(copies[0].meta["val"].shape))
    return reader.target in _BROADCASTING and any(str(tuple(o.meta["val"].shape)) == shape for o in others)
