"""Squeezes of dynamic tensors as views.

The runtime gives a squeezed texture without its outermost dimension the largest size, whatever the input
(runtime/graph/ops/impl/Squeeze.cpp, Clone.cpp), and a buffer squeezed by a negative dimension its old rank. A view of
the same sizes is resized. A dimension of a symbolic size is none of size one: a squeeze leaves it.
"""

import torch
from torch import fx
from torch.export import ExportedProgram

from vkfuse.rewrite.arguments import argument
from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.repairs.each import replace_each
from vkfuse.rewrite.repairs.notes import Repair

aten = torch.ops.aten

_SQUEEZES = (aten.squeeze.default, aten.squeeze.dim, aten.squeeze.dims)


def squeezes_as_views(exported: ExportedProgram) -> tuple[ExportedProgram, tuple[Repair, ...]]:
    """Replace each squeeze of a tensor with a symbolic size."""
    found = [n for n in exported.graph.nodes if n.target in _SQUEEZES and _is_dynamic(n)]
    detail = "a squeeze is not resized by the runtime"
    return replace_each(exported, found, _view, code="squeezes-as-views", detail=detail)


def _is_dynamic(node: fx.Node) -> bool:
    return any(isinstance(size, torch.SymInt) for size in argument(node, 0, "self").meta["val"].shape)


def _view(editor: GraphEditor, node: fx.Node) -> fx.Node:
    source = argument(node, 0, "self")
    removed, sizes = _removed(node, source.meta["val"].shape), editor.sizes(source)
    if not removed:
        return editor.node(source)
    left = [size for dimension, size in enumerate(sizes) if dimension not in removed]
    return editor.call(aten.view.default, editor.node(source), left)


def _removed(node: fx.Node, shape: torch.Size) -> set[int]:
    """The dimensions that go: of those asked for, all without an argument, the ones of size one."""
    asked = argument(node, 1, "dim", default=list(range(len(shape))))
    dimensions = {d % len(shape) for d in (asked if isinstance(asked, (list, tuple)) else [asked])}
    return {d for d in dimensions if isinstance(shape[d], int) and shape[d] == 1}
