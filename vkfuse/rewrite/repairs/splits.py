"""Splits of a dynamic tensor as slices.

``aten.split_with_sizes_copy`` keeps its largest size on Vulkan (runtime/graph/ops/impl/Split.cpp passes no resize
function): at a shorter sequence its results have rows that are not there. Slices are resized.
"""

import operator

import torch
from torch import fx
from torch.export import ExportedProgram

from vkfuse.rewrite.arguments import argument
from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.repairs.notes import Repair

aten = torch.ops.aten
_SPLITS = (aten.split.Tensor, aten.split_with_sizes.default, aten.chunk.default)


def splits_as_slices(exported: ExportedProgram) -> tuple[ExportedProgram, tuple[Repair, ...]]:
    """Replace the parts of each split whose tensor has a symbolic size, where the split dimension itself is static."""
    found = [n for n in exported.graph.nodes if n.target in _SPLITS and _is_dynamic(n)]
    if not found:
        return exported, ()
    editor = GraphEditor(exported)
    for node in found:
        _slice(editor, node)
    names = tuple(n.name for n in found)
    return editor.finish(), (
        Repair(code="splits-as-slices", nodes=names, detail="a split is not resized by the runtime"),
    )


def _is_dynamic(node: fx.Node) -> bool:
    parts = node.meta["val"]
    symbolic = any(isinstance(size, torch.SymInt) for size in parts[0].shape)
    static = all(isinstance(part.shape[_dimension(node)], int) for part in parts)
    return symbolic and static and all(user.target is operator.getitem for user in node.users)


def _dimension(node: fx.Node) -> int:
    return int(argument(node, 2, "dim", 0))


def _slice(editor: GraphEditor, node: fx.Node) -> None:
    dimension = _dimension(node)
    lengths = [part.shape[dimension] for part in node.meta["val"]]
    for item in node.users:
        position = argument(item, 1, "index")
        start = sum(lengths[:position])
        with editor.before(item):
            whole = editor.node(argument(node, 0, "self"))
            editor.replace(
                item, editor.call(aten.slice.Tensor, whole, dimension, start, start + lengths[position])
            )
