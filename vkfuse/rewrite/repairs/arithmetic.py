"""Scalar arithmetic and norms in the form that Vulkan has.

``nn.RMSNorm`` decomposes to ``aten.add.Scalar``, which the runtime has not and which splits a delegate in two;
``native_layer_norm`` needs a weight and a bias (runtime/graph/ops/impl/NativeLayerNorm.cpp).
"""

import torch
from torch import fx
from torch.export import ExportedProgram, default_decompositions

from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.repairs.notes import Repair

aten = torch.ops.aten

_TENSOR_FORMS = {
    aten.add.Scalar: aten.add.Tensor,
    aten.sub.Scalar: aten.sub.Tensor,
    aten.mul.Scalar: aten.mul.Tensor,
    aten.div.Scalar: aten.div.Tensor,
}
_RMS_NORMS = (aten.rms_norm.default, aten._fused_rms_norm.default)  # noqa: SLF001 - the operator's name


def write_out_rms_norm(exported: ExportedProgram) -> tuple[ExportedProgram, tuple[Repair, ...]]:
    """Decompose RMS norms here, so that the next repair sees their scalar addition."""
    found = tuple(n.name for n in exported.graph.nodes if n.target in _RMS_NORMS)
    if not found:
        return exported, ()
    table = default_decompositions()
    result = exported.run_decompositions({op: table[op] for op in _RMS_NORMS})
    return result, (Repair(code="rms-norm-written-out", nodes=found, detail="mean of squares and rsqrt"),)


def scalars_as_tensors(exported: ExportedProgram) -> tuple[ExportedProgram, tuple[Repair, ...]]:
    """Use the tensor form of scalar arithmetic on floats: the same operation with a name that the runtime has."""
    found = [n for n in exported.graph.nodes if n.target in _TENSOR_FORMS and _is_float(n)]
    if not found:
        return exported, ()
    editor = GraphEditor(exported)
    for node in found:
        with editor.before(node):
            args, kwargs = fx.node.map_arg((node.args, node.kwargs), editor.node)
            editor.replace(node, editor.call(_TENSOR_FORMS[node.target], *args, **kwargs))
    names = tuple(n.name for n in found)
    return editor.finish(), (Repair(code="scalars-as-tensors", nodes=names, detail="the runtime has the tensor form only"),)


def complete_layer_norms(exported: ExportedProgram) -> tuple[ExportedProgram, tuple[Repair, ...]]:
    """Give layer norms without weight or bias a weight of ones and a bias of zeros."""
    found = [n for n in exported.graph.nodes if n.target == aten.layer_norm.default and None in _affine(n)]
    if not found:
        return exported, ()
    editor = GraphEditor(exported)
    for node in found:
        shape, dtype = list(node.args[1]), node.meta["val"].dtype
        weight, bias = (None if p is None else editor.node(p) for p in _affine(node))
        weight = editor.constant(torch.ones(shape, dtype=dtype), "layer_norm.ones") if weight is None else weight
        bias = editor.constant(torch.zeros(shape, dtype=dtype), "layer_norm.zeros") if bias is None else bias
        with editor.before(node):
            new = editor.call(node.target, editor.node(node.args[0]), shape, weight, bias, *node.args[4:])
            editor.replace(node, new)
    names = tuple(n.name for n in found)
    return editor.finish(), (Repair(code="layer-norm-completed", nodes=names, detail="the runtime wants weight and bias"),)


def _affine(node: fx.Node) -> tuple[fx.Node | None, fx.Node | None]:
    weight = node.args[2] if len(node.args) > 2 else node.kwargs.get("weight")
    bias = node.args[3] if len(node.args) > 3 else node.kwargs.get("bias")
    return weight, bias  # type: ignore[return-value]


def _is_float(node: fx.Node) -> bool:
    """Float in and out: an integer would be promoted differently by a float scalar tensor."""
    values = [i.meta.get("val") for i in node.all_input_nodes] + [node.meta["val"]]
    return all(isinstance(v, torch.Tensor) and v.dtype.is_floating_point for v in values)
