"""State that a program keeps for nothing, or several times.

transformers counts positions in each layer: a buffer that is set before it is read is none, and buffers that begin equal
and are moved alike stay equal. Each would be two operators on the CPU and a place in memory.
"""

from collections.abc import Collection, Hashable, Mapping

import torch
from torch import fx
from torch.export import ExportedProgram

from vkfuse.program.content import content
from vkfuse.program.parts import constants_of
from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.moves import same_shape
from vkfuse.rewrite.repairs.each import Repairs, done, replaces
from vkfuse.rewrite.repairs.once import numbered

aten = torch.ops.aten


@replaces(aten.copy.default, code="copies-as-sources", detail="the value before is not read")
def copies_as_sources(node: fx.Node, src: fx.Node) -> fx.Node | None:
    """Replace each copy over a tensor of the same type and shape by what is copied: nothing of the old value is left.

    What the program keeps or gives has to be a fresh tensor, not an input or a constant.
    """
    alike = src.meta["val"].dtype == node.meta["val"].dtype and same_shape(src, node)
    fresh = src.op == "call_function" or all(user.op != "output" for user in node.users)
    return src if alike and fresh else None


def unread_state_dropped(exported: ExportedProgram) -> Repairs:
    """Forget buffers that are written and never read: no call finds what an earlier one left."""
    placeholders = {name: node for node, name in exported.graph_signature.inputs_to_buffers.items()}
    nodes = {node.name: node for node in exported.graph.nodes}
    written = exported.graph_signature.buffers_to_mutate.values()
    unread = [b for b in written if b in placeholders and not nodes[placeholders[b]].users]
    return _forgotten(exported, unread, code="unread-state-dropped", detail="written and never read")


def equal_state_kept_once(exported: ExportedProgram) -> Repairs:
    """Keep one of each class of buffers that begin equal and are always written equally."""
    classes = _classes(exported)
    placeholders = {name: node for node, name in exported.graph_signature.inputs_to_buffers.items()}
    nodes = {node.name: node for node in exported.graph.nodes}
    first: dict[Hashable, str] = {}
    again = {b: kept for b, key in classes.items() if (kept := first.setdefault(key, b)) is not b}
    editor = GraphEditor(exported)
    for buffer, kept in again.items():
        editor.replace(nodes[placeholders[buffer]], nodes[placeholders[kept]])
    detail = "equal at first, and written alike"
    return _forgotten(
        editor.finish() if again else exported, again, code="equal-state-kept-once", detail=detail
    )


def _classes(exported: ExportedProgram) -> dict[str, Hashable]:
    """Which written buffers are equal at every time: told apart until writing keeps the rest together."""
    tensors, nodes = constants_of(exported), {node.name: node for node in exported.graph.nodes}
    signature = exported.graph_signature
    placeholders = {name: node for node, name in signature.inputs_to_buffers.items()}
    writes = {buffer: nodes[node] for node, buffer in signature.buffers_to_mutate.items()}
    found: dict[str, Hashable] = {b: content(tensors[placeholders[b]]) for b in writes if b in placeholders}
    while True:
        keys = numbered(exported, {placeholders[b]: key for b, key in found.items()})
        parted = {b: (key, keys[writes[b]]) for b, key in found.items()}
        if len({*parted.values()}) == len({*found.values()}):
            return found
        found = _renumbered(parted)


def _renumbered(classes: Mapping[str, Hashable]) -> dict[str, Hashable]:
    numbers: dict[Hashable, int] = {}
    return {buffer: numbers.setdefault(key, len(numbers)) for buffer, key in classes.items()}


def _forgotten(exported: ExportedProgram, buffers: Collection[str], *, code: str, detail: str) -> Repairs:
    editor = GraphEditor(exported)
    editor.forget(buffers)
    return done(editor, buffers, code=code, detail=detail)
