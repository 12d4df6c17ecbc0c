"""Remainders of integers with the sign of the divisor.

ExecuTorch's kernel gives the sign of C (kernels/portable/cpu/util/math_util.h, remainder_override): -1 % 64 is -1.
"""

from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram

from vkfuse.rewrite.arguments import argument
from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.repairs.each import replace_each
from vkfuse.rewrite.repairs.notes import Repair

aten = torch.ops.aten

_REMAINDERS = (aten.remainder.Scalar, aten.remainder.Tensor)


def remainders_with_sign(exported: ExportedProgram) -> tuple[ExportedProgram, tuple[Repair, ...]]:
    """Add the divisor to each remainder of integers that has not its sign."""
    found = [n for n in exported.graph.nodes if n.target in _REMAINDERS and _is_integer(n)]
    detail = "the runtime's remainder has the sign of what is divided"
    return replace_each(exported, found, _signed, code="remainders-with-sign", detail=detail)


def _is_integer(node: fx.Node) -> bool:
    return node.meta["val"].dtype in {torch.int8, torch.int16, torch.int32, torch.int64}


def _signed(editor: GraphEditor, node: fx.Node) -> fx.Node:
    args, _ = fx.node.map_arg((node.args, node.kwargs), editor.node)
    rest, divisor = editor.call(node.target, *args), argument(node, 1, "other")
    moved = editor.call(aten.add.Tensor, rest, args[1])
    return editor.call(aten.where.self, _wrong(editor, rest, divisor, args[1]), moved, rest)


def _wrong(editor: GraphEditor, rest: fx.Node, divisor: Any, copied: Any) -> fx.Node:
    """Where a remainder has another sign than its divisor: bool, of the remainder's shape."""
    below = editor.call(aten.lt.Scalar, rest, 0)
    if isinstance(divisor, int) and divisor > 0:
        return below
    above = editor.call(aten.gt.Scalar, rest, 0)
    if isinstance(divisor, int):
        return above
    return editor.call(aten.where.self, editor.call(aten.lt.Scalar, copied, 0), above, below)
