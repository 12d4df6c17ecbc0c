"""Conditions of all the dimensions of the choice that they make.

On Vulkan a choice is resized to the sizes of its operands in turn, and one of more dimensions than those before gets
its extra ones at the end (runtime/graph/ops/impl/Where.cpp, resize_where_node): a mask [rows, columns] of scores
[batch, rows, columns] aborts, or the result has another shape. Triangles of matrices are such choices once decomposed.
"""

from typing import Any

import torch
from torch import fx
from torch._decomp import get_decompositions
from torch.export import ExportedProgram

from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.repairs.each import replace_each
from vkfuse.rewrite.repairs.notes import Repair

aten = torch.ops.aten

_TRIANGLES = (aten.tril.default, aten.triu.default)
_CONDITION: dict[Any, int] = {  # position of the condition
    aten.where.self: 0,
    aten.where.ScalarOther: 0,
    aten.where.ScalarSelf: 0,
    aten.masked_fill.Scalar: 1,
    aten.masked_fill.Tensor: 1,
}


def conditions_in_full_rank(exported: ExportedProgram) -> tuple[ExportedProgram, tuple[Repair, ...]]:
    """Let each condition of a choice with a symbolic size have as many dimensions as the result."""
    triangles = [n for n in exported.graph.nodes if n.target in _TRIANGLES and _is_dynamic(n)]
    if triangles:
        exported = exported.run_decompositions(get_decompositions(_TRIANGLES))
    found = [n for n in exported.graph.nodes if n.target in _CONDITION and _is_dynamic(n) and _lacks(n)]
    detail = "the runtime resizes a choice by its condition first"
    return replace_each(exported, found, _completed, code="conditions-in-full-rank", detail=detail)


def _is_dynamic(node: fx.Node) -> bool:
    return any(isinstance(size, torch.SymInt) for size in node.meta["val"].shape)


def _lacks(node: fx.Node) -> int:
    """How many dimensions the condition has less than the result."""
    condition = node.args[_CONDITION[node.target]]
    return node.meta["val"].ndim - condition.meta["val"].ndim if isinstance(condition, fx.Node) else 0


def _completed(editor: GraphEditor, node: fx.Node) -> fx.Node:
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), editor.node)
    position, operands = _CONDITION[node.target], list(args)
    for _ in range(_lacks(node)):
        operands[position] = editor.call(aten.unsqueeze.default, operands[position], 0)
    return editor.call(node.target, *operands, **kwargs)
