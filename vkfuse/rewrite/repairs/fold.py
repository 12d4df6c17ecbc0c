"""Fold what no input reaches: masks and positions built by arange, ``1 + weight``, tables that no rule could keep.

ExecuTorch 1.5 cannot lower a delegate without inputs (FuseBatchNormPass mixes fake modes), and its runtime cannot
prepack a weight that is an expression (prepack_standard wants a constant).
"""

from dataclasses import replace

import torch
from torch import fx
from torch.export import ExportedProgram

from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.repairs.each import done
from vkfuse.rewrite.repairs.notes import Repairs

aten = torch.ops.aten

_TRANSPOSES = (aten.t.default, aten.permute.default, aten.transpose.int)
_MATMULS = (aten.mm.default, aten.addmm.default, aten.matmul.default)


def fold_constants(exported: ExportedProgram) -> Repairs:
    """Replace each constant expression that something else reads by its value."""
    editor = GraphEditor(exported)
    folded = [n for n in editor.constants.frontier(exported.graph) if not _read_by_lowering(n)]
    for node in folded:
        editor.replace(node, editor.constant(editor.constants.value(node), f"folded.{node.name}"))
    result, repairs = done(editor, (n.name for n in folded), code="constants-folded", detail="")
    added = _constant_bytes(result) - _constant_bytes(exported)
    detail = f"{len(folded)} constant expressions evaluated, {added:+,} bytes of constants"
    return result, tuple(replace(repair, detail=detail) for repair in repairs)


def _read_by_lowering(node: fx.Node) -> bool:
    """A transposed parameter of a matmul: the lowering reads the parameter itself, a copy would be stored twice."""
    if node.target not in _TRANSPOSES or not all(i.op == "placeholder" for i in node.all_input_nodes):
        return False
    return all(user.target in _MATMULS for user in node.users)


def _constant_bytes(exported: ExportedProgram) -> int:
    tensors = [*exported.state_dict.values(), *exported.constants.values()]
    return sum(t.numel() * t.element_size() for t in tensors if isinstance(t, torch.Tensor))
