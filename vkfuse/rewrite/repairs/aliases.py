"""Names for one tensor as that tensor.

ExecuTorch's lowering removes aliases, and expansions to the size that a tensor has, inside of a delegate: two results
of it become one, while its caller still passes two, or what only the size was read of (backends/transforms/
remove_clone_ops.py and the like).
"""

import torch
from torch import fx

from vkfuse.rewrite.moves import COPIES
from vkfuse.rewrite.repairs.each import replaces

aten = torch.ops.aten

_ALIASES = (aten.alias.default, aten.detach.default)


@replaces(
    *(*_ALIASES, *COPIES, aten.expand.default),
    code="aliases-as-themselves",
    detail="a delegate's results are told apart",
)
def aliases_as_themselves(node: fx.Node, x: fx.Node) -> fx.Node | None:
    """Let readers of another name, or an equal copy, of a computed tensor read the tensor; of an expanded input too."""
    is_own = x.op == "call_function" or (
        node.target == aten.expand.default and all(user.op == "call_function" for user in node.users)
    )
    return x if is_own and (node.target in _ALIASES or _layout(node) == _layout(x)) else None


@replaces(
    *(aten.__and__.Tensor, aten.bitwise_and.Tensor, aten.logical_and.default),
    code="ands-with-true",
    detail="what is anded is the result",
)
def ands_with_true(x: fx.Node, other: object) -> fx.Node | None:
    """Let readers of what is true at all times, and something else, read the other: masks begin so."""
    for true, left in ((x, other), (other, x)):
        if _is_true(true) and isinstance(left, fx.Node) and left.meta["val"].dtype == torch.bool:
            return left
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
