"""The shape that most repairs have: nodes are found, and each is replaced where it stands."""

from collections.abc import Callable, Collection
from typing import TypeAlias

from torch import fx
from torch.export import ExportedProgram

from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.repairs.notes import Repair

Build: TypeAlias = Callable[[GraphEditor, fx.Node], fx.Node]


def replace_each(
    exported: ExportedProgram, found: Collection[fx.Node], build: Build, *, code: str, detail: str
) -> tuple[ExportedProgram, tuple[Repair, ...]]:
    """Let every reader of a found node read what `build(editor, node)` makes in front of it; the note names the nodes."""
    if not found:
        return exported, ()
    editor = GraphEditor(exported)
    for node in found:
        with editor.before(node):
            editor.replace(node, build(editor, node))
    names = tuple(node.name for node in found)
    return editor.finish(), (Repair(code=code, nodes=names, detail=detail),)
