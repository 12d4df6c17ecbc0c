"""What a program computes several times, once.

Each layer of a language model looks up its own copy of the mask and moves its own count of the positions: equal tensors,
which stay on the CPU and would enter the delegate once for each layer.
"""

from collections.abc import Hashable, Mapping
from typing import Final

import torch
from torch import fx
from torch.export import ExportedProgram

from vkfuse.program.content import content
from vkfuse.program.parts import constants_of
from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.operands import is_pure
from vkfuse.rewrite.repairs.each import Repairs, done

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
