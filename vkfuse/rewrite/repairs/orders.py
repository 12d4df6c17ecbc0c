"""Tensors in the default order of dimensions.

A delegate's border copies bytes as if every tensor were in it (runtime/VulkanBackend.cpp): channels_last would come in
scrambled. A copy in front, on the CPU, puts inputs in order; copies into another order within the program keep it.
"""

import torch
from torch import fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.repairs.each import Repairs, done, replaces

aten = torch.ops.aten


_IGNORED = "the runtime ignores other orders of dimensions"


def inputs_in_order(exported: ExportedProgram) -> Repairs:
    """Copy each input whose example is in another order of dimensions, as channels_last, into the default one."""
    inputs = {s.arg.name for s in exported.graph_signature.input_specs if s.kind is InputKind.USER_INPUT}
    placeholders = exported.graph.find_nodes(op="placeholder")
    found = [n for n in placeholders if n.name in inputs and _is_out_of_order(n)]
    editor = GraphEditor(exported)
    first = next(node for node in exported.graph.nodes if node.op != "placeholder")
    for node in found:
        with editor.before(first):
            copy = editor.call(aten.clone.default, node, memory_format=torch.contiguous_format)
        editor.replace(node, copy)
    return done(editor, (n.name for n in found), code="inputs-in-order", detail=_IGNORED)


def constants_in_order(exported: ExportedProgram) -> Repairs:
    """Put constants in the default order: a channels_last weight makes channels_last results."""
    repaired, repairs = _constants_in_order(exported)
    return repaired.run_decompositions({}) if repairs else repaired, repairs


@replaces(code="constants-in-order", detail=_IGNORED)
def _constants_in_order(editor: GraphEditor, node: fx.Node) -> fx.Node | None:
    if node.op != "placeholder" or not _is_out_of_order(node) or node not in editor.constants:
        return None
    return editor.constant(editor.constants.value(node), f"ordered.{node.name}")


@replaces(
    *(aten.clone.default, aten._to_copy.default),  # noqa: SLF001 - the operator's name
    code="copies-in-order",
    detail=_IGNORED,
)
def copies_in_order(editor: GraphEditor, node: fx.Node) -> torch.Tensor | None:
    """Let copies into another order of dimensions keep the default one, but for those that are the program's results.

    Of a result whose sizes of one leave the values in place in either order, ExecuTorch gives the order twice, from the
    memory format and from the strides, which its copy refuses where they differ.
    """
    if not _is_out_of_order(node) or not (_is_read(node) or node.meta["val"].is_contiguous()):
        return None
    return editor.again(node, memory_format=torch.contiguous_format)


@replaces(
    torch.ops.prims.copy_strided.default, code="copies-in-order", detail="no library has a kernel of it"
)
def strided_copies_in_order(node: fx.Node, a: torch.Tensor) -> torch.Tensor:
    """Copy into an order of dimensions that has a name, what torch's decompositions copy into strides."""
    last = not _is_read(node) and node.meta["val"].is_contiguous(memory_format=torch.channels_last)
    copy: torch.Tensor = aten.clone.default(
        a, memory_format=torch.channels_last if last else torch.contiguous_format
    )
    return copy


def _is_read(node: fx.Node) -> bool:
    """Whether something computes with it."""
    return any(user.op == "call_function" for user in node.users)


def _is_out_of_order(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and tuple(value.dim_order()) != tuple(range(value.ndim))
