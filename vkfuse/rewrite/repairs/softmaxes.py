"""Softmaxes over batches, and over channels of batches, as softmaxes over rows.

The runtime counts the dimensions of a texture, of which batches are none, and builds no softmax over channels that are
stored behind one another batch by batch (runtime/graph/ops/impl/Softmax.cpp). Turned, the same values are in rows.
"""

import torch
from torch import fx
from torch.export import ExportedProgram

from vkfuse.rewrite.arguments import argument
from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.repairs.each import replace_each
from vkfuse.rewrite.repairs.notes import Repair

aten = torch.ops.aten

_SOFTMAXES = (
    aten.softmax.int,
    aten.log_softmax.int,
    aten._softmax.default,  # noqa: SLF001 - the operator's name
    aten._log_softmax.default,  # noqa: SLF001
)
_BATCHED = 4  # dimensions, the outermost a batch


def softmaxes_in_rows(exported: ExportedProgram) -> tuple[ExportedProgram, tuple[Repair, ...]]:
    """Turn what each softmax over the batch, or over channels of several batches, reads and writes."""
    found = [n for n in exported.graph.nodes if n.target in _SOFTMAXES and _is_across(n)]
    detail = "the runtime's softmax is not over batches"
    return replace_each(exported, found, _turned, code="softmax-in-rows", detail=detail)


def _is_across(node: fx.Node) -> bool:
    shape = argument(node, 0, "self").meta["val"].shape
    dim = argument(node, 1, "dim") % max(1, len(shape))
    if len(shape) != _BATCHED:
        return False
    several = isinstance(shape[0], torch.SymInt) or shape[0] > 1
    return dim == 0 or (dim == 1 and several)


def _turned(editor: GraphEditor, node: fx.Node) -> fx.Node:
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), editor.node)
    source, _, *rest = args  # both are positional in exported programs
    dim, order = argument(node, 1, "dim"), list(range(_BATCHED))
    order[dim], order[-1] = order[-1], order[dim]
    rows = editor.call(aten.permute.default, source, order)
    return editor.call(aten.permute.default, editor.call(node.target, rows, -1, *rest, **kwargs), order)
