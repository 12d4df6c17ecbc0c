"""Reductions along inner dimensions, as the runtime has them: keeping the dimension, which is squeezed afterwards.

ExecuTorch delegates a reduction without ``keepdim`` along the last dimension only (backends/vulkan/op_registry.py,
is_reduce_node_supported). The mean over a sentence's tokens would leave the delegate.
"""

import torch
from torch import fx
from torch.export import ExportedProgram

from vkfuse.rewrite.arguments import argument
from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.repairs.each import replace_each
from vkfuse.rewrite.repairs.notes import Repair

aten = torch.ops.aten

_REDUCTIONS = (aten.sum.dim_IntList, aten.mean.dim, aten.amax.default, aten.amin.default)
_MOST = 2  # dimensions that the runtime reduces at once


def reductions_keep_dimensions(exported: ExportedProgram) -> tuple[ExportedProgram, tuple[Repair, ...]]:
    """Let each reduction of floats along one or two dimensions, the last not by itself, keep them, and squeeze them."""
    found = {n: dims for n in exported.graph.nodes if (dims := _removed(n)) is not None}

    def kept(editor: GraphEditor, node: fx.Node) -> fx.Node:
        source = editor.node(argument(node, 0, "self"))
        return editor.call(
            aten.squeeze.dims, editor.call(node.target, source, found[node], True), found[node]
        )

    detail = "the runtime's inner reductions keep them"
    return replace_each(exported, found, kept, code="reductions-keep-dimensions", detail=detail)


def _removed(node: fx.Node) -> list[int] | None:
    """The dimensions that such a reduction removes."""
    if node.target not in _REDUCTIONS or argument(node, 2, "keepdim", default=False) or node.kwargs:
        return None
    source, given = argument(node, 0, "self").meta["val"], argument(node, 1, "dim")
    if not source.dtype.is_floating_point or source.ndim <= 1 or not given:
        return None
    dims = sorted(d % source.ndim for d in given)
    return None if len(dims) > _MOST or dims == [source.ndim - 1] else dims
