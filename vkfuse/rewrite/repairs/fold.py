"""Fold what no input reaches: masks and positions built by arange, ``1 + weight``, tables that no rule could keep.

ExecuTorch 1.5 cannot lower a delegate without inputs (FuseBatchNormPass mixes fake modes), and its runtime cannot
prepack a weight that is an expression (prepack_standard wants a constant).
"""

from dataclasses import replace
from typing import Final

import torch
from torch import fx
from torch.export import ExportedProgram

from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.moves import TRANSPOSES
from vkfuse.rewrite.repairs.each import Repairs, done

aten = torch.ops.aten

_MATMULS = (aten.mm.default, aten.addmm.default, aten.matmul.default)
_BROADCASTING = (aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor)
_LEAST_REPEATED: Final = 4 << 10  # bytes of equal rows that are worth another shape


def fold_constants(exported: ExportedProgram) -> Repairs:
    """Replace each constant expression that something else reads by its value."""
    editor = GraphEditor(exported)
    folded = [n for n in editor.constants.frontier(exported.graph) if not _read_by_lowering(n)]
    for node in folded:
        value = _rows_once(node, editor.constants.value(node))
        editor.replace(node, editor.constant(value, f"folded.{node.name}"))
    result, repairs = done(editor, (n.name for n in folded), code="constants-folded", detail="")
    added = _constant_bytes(result) - _constant_bytes(exported)
    detail = f"{len(folded)} constant expressions evaluated, {added:+,} bytes of constants"
    return result, tuple(replace(repair, detail=detail) for repair in repairs)


def _rows_once(node: fx.Node, value: torch.Tensor) -> torch.Tensor:
    """One row [..., 1, columns] of a value whose rows are equal, bit for bit, and spread over its readers' other operands.

    As the token types of an encoder, which are all of the first type.
    """
    if (
        value.ndim < 2
        or value.nbytes < _LEAST_REPEATED
        or not all(_spreads(user, node) for user in node.users)
    ):
        return value
    row = value[..., :1, :].contiguous()
    same = torch.equal(
        value.contiguous().view(torch.uint8), row.expand_as(value).contiguous().view(torch.uint8)
    )
    return row if same else value


def _spreads(user: fx.Node, node: fx.Node) -> bool:
    """Whether an operator makes what it makes of one row too: its other operand has as many."""
    if user.target not in _BROADCASTING or len(user.all_input_nodes) < 2:
        return False
    (other,) = (operand for operand in user.all_input_nodes if operand is not node)
    ours, theirs = node.meta["val"].shape, other.meta["val"].shape
    return len(theirs) >= 2 and isinstance(theirs[-2], int) and theirs[-2] == ours[-2]


def _read_by_lowering(node: fx.Node) -> bool:
    """A transposed parameter of a matmul: the lowering reads the parameter itself, a copy would be stored twice."""
    if node.target not in TRANSPOSES or not all(i.op == "placeholder" for i in node.all_input_nodes):
        return False
    return all(user.target in _MATMULS for user in node.users)


def _constant_bytes(exported: ExportedProgram) -> int:
    tensors = [*exported.state_dict.values(), *exported.constants.values()]
    return sum(t.numel() * t.element_size() for t in tensors if isinstance(t, torch.Tensor))
