"""Masks filled with the lowest number, as the runtime's softmax can tell it from nothing.

A row that is masked everywhere, by ``finfo.min`` and not by minus infinity, is uniform after a softmax. The runtime's
softmax starts its search for the largest value at -3.402823e38 (runtime/graph/ops/glsl/softmax.glsl), above the lowest
float32: there such a row becomes zeros. The fill is raised to that number; adding scores to either leaves it as it is,
so that every row's softmax is what it was. Half precision has neither number and makes minus infinity of both: for it the
fill is raised to its own lowest, which scores below 16 leave as it is.
"""

import torch
from torch import fx
from torch.export import ExportedProgram

from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.moves import MOVES
from vkfuse.rewrite.repairs.each import Repairs, done

aten = torch.ops.aten

LOWEST = torch.finfo(torch.float32).min
FLOOR = float(torch.tensor(-3.402823e38))
HALF_FLOOR = torch.finfo(torch.float16).min

_SOFTMAX = (
    *(aten.softmax.int, aten.log_softmax.int, aten.scaled_dot_product_attention.default),
    *(aten._softmax.default, aten._log_softmax.default),  # noqa: SLF001 - the operators' names
)
_CARRIERS = (
    *MOVES,
    *(aten.full.default, aten.full_like.default, aten.new_full.default, aten.scalar_tensor.default),
    *(aten.add.Tensor, aten.mul.Scalar, aten.mul.Tensor),
    *(aten.masked_fill.Scalar, aten.masked_fill.Tensor),
    *(aten.where.Scalar, aten.where.ScalarOther, aten.where.ScalarSelf, aten.where.self),
)


def raise_mask_fills(exported: ExportedProgram, floor: float = FLOOR) -> Repairs:
    """Raise the lowest float32 to the softmax's floor wherever nothing but a softmax sees the difference."""
    editor = GraphEditor(exported)
    literal = [n for n in exported.graph.nodes if _has_literal(n) and _ends_in_softmax(n)]
    masks = (n for n in exported.graph.find_nodes(op="placeholder") if n in editor.constants)
    stored = [n for n in masks if _ends_in_softmax(n) and bool((editor.constants.value(n) == LOWEST).any())]
    for node in stored:
        value = editor.constants.value(node)
        raised = editor.constant(torch.where(value == LOWEST, floor, value), f"raised.{node.name}")
        editor.replace(node, raised)
    for node in literal:
        args = (floor if a == LOWEST else a for a in node.args)
        with editor.before(node):
            editor.replace(node, editor.call(node.target, *args, **node.kwargs))
    names = (n.name for n in (*stored, *literal))
    detail = f"{LOWEST:.9g} becomes {floor:.9g}, the least that the runtime's softmax sees"
    return done(editor, names, code="mask-fills-raised", detail=detail)


def raise_mask_fills_in_half(exported: ExportedProgram) -> Repairs:
    """Raise the lowest float32 to the lowest half, for a file that computes in half precision."""
    return raise_mask_fills(exported, HALF_FLOOR)


def _has_literal(node: fx.Node) -> bool:
    return node.target in _CARRIERS and any(isinstance(a, float) and a == LOWEST for a in node.args)


def _ends_in_softmax(node: fx.Node) -> bool:
    """Whether `node` is float32 and every way from it leads through carriers of masks into a softmax."""
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor) or value.dtype != torch.float32 or not node.users:
        return False
    return all(
        user.target in _SOFTMAX or (user.target in _CARRIERS and _ends_in_softmax(user))
        for user in node.users
    )
