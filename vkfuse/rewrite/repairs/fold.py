"""Fold what no input reaches: masks and positions built by arange, ``1 + weight``, tables that no rule could keep.

ExecuTorch 1.5 cannot lower a delegate without inputs (FuseBatchNormPass mixes fake modes), and its runtime cannot
prepack a weight that is an expression (prepack_standard wants a constant).
"""

import torch
from torch import fx
from torch.export import ExportedProgram

from vkfuse.rewrite.constants import Constants
from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.repairs.notes import Repair

aten = torch.ops.aten

_TRANSPOSES = (aten.t.default, aten.permute.default, aten.transpose.int)
_MATMULS = (aten.mm.default, aten.addmm.default, aten.matmul.default)


def fold_constants(exported: ExportedProgram) -> tuple[ExportedProgram, tuple[Repair, ...]]:
    """Replace each constant expression that something else reads by its value."""
    constants = Constants(exported)
    folded = [n for n in constants.frontier(exported.graph) if not _read_by_lowering(n)]
    if not folded:
        return exported, ()
    editor = GraphEditor(exported)
    before = _constant_bytes(exported)
    for node in folded:
        value = constants.value(node)
        editor.replace(node, editor.constant(value, f"folded.{node.name}"))
    result = editor.finish()
    names = tuple(n.name for n in folded)
    added = _constant_bytes(result) - before
    detail = f"{len(names)} constant expressions evaluated, {added:+,} bytes of constants"
    return result, (Repair(code="constants-folded", nodes=names, detail=detail),)


def _read_by_lowering(node: fx.Node) -> bool:
    """A transposed parameter of a matmul: the lowering reads the parameter itself, a copy would be stored twice."""
    if node.target not in _TRANSPOSES or not all(i.op == "placeholder" for i in node.all_input_nodes):
        return False
    return all(user.target in _MATMULS for user in node.users)


def _constant_bytes(exported: ExportedProgram) -> int:
    tensors = [*exported.state_dict.values(), *exported.constants.values()]
    return sum(t.numel() * t.element_size() for t in tensors if isinstance(t, torch.Tensor))
