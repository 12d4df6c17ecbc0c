"""What a program computes several times, once.

Each layer of a language model looks up its own copy of the mask and moves its own count of the positions: equal tensors,
which stay on the CPU and would enter the delegate once for each layer.

ExecuTorch's lowering removes aliases, and expansions to the size that a tensor has, inside of a delegate: two results
of it become one, while its caller still passes two, or what only the size was read of (backends/transforms/
remove_clone_ops.py and the like).
"""

from collections.abc import Hashable, Mapping
from typing import Final

import torch
from torch import fx
from torch.export import ExportedProgram

from vkfuse.program.content import content
from vkfuse.program.parts import constants_of
from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.moves import COPIES
from vkfuse.rewrite.operands import is_pure
from vkfuse.rewrite.repairs.each import Repairs, done, replaces

_SMALL: Final = 1 << 20  # bytes of a float constant that is compared; masks and positions of any size are


def computed_once(exported: ExportedProgram) -> Repairs:
    """Let readers of an equal computation read the first."""
    first: dict[Hashable, fx.Node] = {}
    keys = numbered(exported, {})
    again = {n: found for n, key in keys.items() if (found := first.setdefault(key, n)) is not n}
    replaced = {n: found for n, found in again.items() if n.op == "call_function"}
    editor = GraphEditor(exported)
    for node, found in replaced.items():
        editor.replace(node, found)
    names = (node.name for node in replaced)
    return done(editor, names, code="computed-once", detail="equal computations of a program")


def numbered(exported: ExportedProgram, same: Mapping[str, Hashable]) -> dict[fx.Node, Hashable]:
    """A key for each node: nodes with equal keys compute equal values. `same` are the keys of placeholders given so far."""
    tensors = constants_of(exported)
    written = {*exported.graph_signature.buffers_to_mutate.values()}
    buffers = exported.graph_signature.inputs_to_buffers
    keys: dict[fx.Node, Hashable] = {}
    numbers: dict[Hashable, int] = {}
    for node in exported.graph.nodes:
        if node.name in same:
            key: Hashable = ("state", same[node.name])
        elif node.op == "placeholder" and node.name in tensors and buffers.get(node.name) not in written:
            key = _stored(node.name, tensors[node.name])
        else:
            key = _call(node, keys)
        keys[node] = numbers.setdefault(key, len(numbers))
    return keys


def _stored(name: str, tensor: torch.Tensor) -> Hashable:
    small = tensor.numel() * tensor.element_size() <= _SMALL
    compared = small or tensor.dtype in {torch.bool, torch.int32, torch.int64}
    return content(tensor) if compared else name


def _call(node: fx.Node, keys: Mapping[fx.Node, Hashable]) -> Hashable:
    """What a pure operator computes of which values; anything else is only itself."""
    if node.op != "call_function" or not _is_pure(node):
        return node
    arguments = fx.node.map_arg((node.args, node.kwargs), lambda n: f"<{keys[n]}>")
    return str(node.target), repr(arguments)


def _is_pure(node: fx.Node) -> bool:
    return is_pure(node.target) or getattr(node.target, "__module__", "") in {"_operator", "math"}


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
