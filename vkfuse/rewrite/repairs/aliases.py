"""Names for one tensor as that tensor.

ExecuTorch's lowering removes aliases, and expansions to the size that a tensor has, inside of a delegate: two results
of it become one, while its caller still passes two (backends/transforms/remove_clone_ops.py and the like).
"""

import torch
from torch import fx
from torch.export import ExportedProgram

from vkfuse.rewrite.arguments import argument
from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.repairs.notes import Repair

aten = torch.ops.aten

_ALIASES = (aten.alias.default, aten.detach.default)
_COPIES = (aten.expand.default, aten.clone.default, aten.contiguous.default)


def aliases_as_themselves(exported: ExportedProgram) -> tuple[ExportedProgram, tuple[Repair, ...]]:
    """Let readers of another name, or an equal copy, of a computed tensor read the tensor."""
    found = [n for n in exported.graph.nodes if _is_another_name(n)]
    if not found:
        return exported, ()
    editor = GraphEditor(exported)
    for node in found:
        editor.replace(node, editor.node(argument(node, 0, "self")))
    names = tuple(n.name for n in found)
    return editor.finish(), (
        Repair(code="aliases-as-themselves", nodes=names, detail="a delegate's results are told apart"),
    )


def _is_another_name(node: fx.Node) -> bool:
    if node.target not in (*_ALIASES, *_COPIES):
        return False
    source = argument(node, 0, "self")
    return source.op == "call_function" and (node.target in _ALIASES or _layout(node) == _layout(source))


def _layout(node: fx.Node) -> tuple[object, ...]:
    """Sizes and strides as expressions, which compare without a guard."""
    value = node.meta["val"]
    return tuple(map(str, value.shape)), tuple(map(str, value.stride()))
