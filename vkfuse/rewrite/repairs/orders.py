"""Tensors in the default order of dimensions.

A delegate's border copies bytes as if every tensor were in it (runtime/VulkanBackend.cpp): channels_last would come in
scrambled. A copy in front, on the CPU, puts inputs in order; copies into another order within the program keep it.
"""

import torch
from torch import fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from vkfuse.rewrite.constants import Constants
from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.repairs.each import replace_each
from vkfuse.rewrite.repairs.notes import Repair

aten = torch.ops.aten


def inputs_in_order(exported: ExportedProgram) -> tuple[ExportedProgram, tuple[Repair, ...]]:
    """Copy each input whose example is in another order of dimensions, as channels_last, into the default one."""
    inputs = {s.arg.name for s in exported.graph_signature.input_specs if s.kind is InputKind.USER_INPUT}
    found = [
        n for n in exported.graph.find_nodes(op="placeholder") if n.name in inputs and _is_out_of_order(n)
    ]
    if not found:
        return exported, ()
    editor = GraphEditor(exported)
    first = next(node for node in exported.graph.nodes if node.op != "placeholder")
    for node in found:
        with editor.before(first):
            copy = editor.call(aten.clone.default, editor.node(node), memory_format=torch.contiguous_format)
        editor.replace(node, copy)
    names = tuple(n.name for n in found)
    return editor.finish(), (
        Repair(code="inputs-in-order", nodes=names, detail="the runtime ignores other orders of dimensions"),
    )


def constants_in_order(exported: ExportedProgram) -> tuple[ExportedProgram, tuple[Repair, ...]]:
    """Put constants in the default order: a channels_last weight makes channels_last results."""
    constants = Constants(exported)
    found = [n for n in exported.graph.find_nodes(op="placeholder") if n in constants and _is_out_of_order(n)]
    if not found:
        return exported, ()
    editor = GraphEditor(exported)
    for node in found:
        editor.replace(node, editor.constant(constants.value(node), f"ordered.{node.name}"))
    names = tuple(n.name for n in found)
    return editor.finish().run_decompositions({}), (
        Repair(
            code="constants-in-order", nodes=names, detail="the runtime ignores other orders of dimensions"
        ),
    )


def copies_in_order(exported: ExportedProgram) -> tuple[ExportedProgram, tuple[Repair, ...]]:
    """Let copies into another order of dimensions keep the default one, but for those that are the program's results.

    Of a result whose sizes of one leave the values in place in either order, ExecuTorch gives the order twice, from the
    memory format and from the strides, which its copy refuses where they differ.
    """
    out = (n for n in exported.graph.nodes if n.target in _COPIES and _is_out_of_order(n))
    found = [n for n in out if _is_read(n) or n.meta["val"].is_contiguous()]
    detail = "the runtime ignores other orders of dimensions"
    return replace_each(exported, found, _in_order, code="copies-in-order", detail=detail)


def _in_order(editor: GraphEditor, node: fx.Node) -> fx.Node:
    args, given = fx.node.map_arg((node.args, node.kwargs), editor.node)
    return editor.call(node.target, *args, **{**given, "memory_format": torch.contiguous_format})


_COPIES = (aten.clone.default, aten._to_copy.default)  # noqa: SLF001 - the operator's name


def _is_read(node: fx.Node) -> bool:
    """Whether something computes with it."""
    return any(user.op == "call_function" for user in node.users)


def _is_out_of_order(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and tuple(value.dim_order()) != tuple(range(value.ndim))
