"""Names for one tensor as that tensor.

ExecuTorch's lowering removes aliases, and expansions to the size that a tensor has, inside of a delegate: two results
of it become one, while its caller still passes two (backends/transforms/remove_clone_ops.py and the like).
"""

import torch
from torch import fx

from vkfuse.rewrite.arguments import argument
from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.repairs.each import replaces

aten = torch.ops.aten

_ALIASES = (aten.alias.default, aten.detach.default)
_COPIES = (aten.expand.default, aten.clone.default, aten.contiguous.default)


@replaces(*_ALIASES, *_COPIES, code="aliases-as-themselves", detail="a delegate's results are told apart")
def aliases_as_themselves(editor: GraphEditor, node: fx.Node) -> fx.Node | None:
    """Let readers of another name, or an equal copy, of a computed tensor read the tensor."""
    del editor
    source: fx.Node = argument(node, 0, "self")
    same = source.op == "call_function" and (node.target in _ALIASES or _layout(node) == _layout(source))
    return source if same else None


@replaces(
    *(aten.__and__.Tensor, aten.bitwise_and.Tensor, aten.logical_and.default),
    code="ands-with-true",
    detail="what is anded is the result",
)
def ands_with_true(editor: GraphEditor, node: fx.Node) -> fx.Node | None:
    """Let readers of what is true at all times, and something else, read the other: masks begin so."""
    del editor
    for one, other in (node.args, node.args[::-1]):
        if _is_true(one) and isinstance(other, fx.Node) and other.meta["val"].dtype == torch.bool:
            return other
    return None


def _is_true(node: object) -> bool:
    if not isinstance(node, fx.Node) or node.target not in {aten.new_ones.default, aten.ones.default}:
        return False
    value: torch.Tensor = node.meta["val"]
    return value.dtype == torch.bool and not value.ndim


def _layout(node: fx.Node) -> tuple[object, ...]:
    """Sizes and strides as expressions, which compare without a guard."""
    value = node.meta["val"]
    return tuple(map(str, value.shape)), tuple(map(str, value.stride()))
