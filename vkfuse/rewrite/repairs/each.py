"""The shape that most repairs have: a node is replaced where it stands, by what a function makes of it."""

from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any, TypeAlias

from torch import fx
from torch.export import ExportedProgram

from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.repairs.notes import Repair, RepairRule, Repairs

Make: TypeAlias = Callable[[GraphEditor, fx.Node], fx.Node | None]


def replaces(*targets: Any, code: str, detail: str) -> Callable[[Make], RepairRule]:
    """Make a repair of what replaces one node: a function that gets each call of `targets`, without any each node.

    What it makes stands in front of the node, and every reader of the node reads it; None leaves a node as it is. The
    function is to make nothing before it knows.
    """

    def repair_of(make: Make) -> RepairRule:
        @wraps(make)
        def repair(exported: ExportedProgram) -> Repairs:
            editor, found = GraphEditor(exported), []
            for node in exported.graph.nodes:
                if targets and node.target not in targets:
                    continue
                with editor.before(node):
                    new = make(editor, node)
                if new is not None:
                    editor.replace(node, new)
                    found.append(node.name)
            return done(editor, found, code=code, detail=detail)

        return repair

    return repair_of


def done(editor: GraphEditor, nodes: Iterable[str], *, code: str, detail: str) -> Repairs:
    """What a repair returns that did something to `nodes`; the program as it was where there are none."""
    names = tuple(nodes)
    if not names:
        return editor.program, ()
    return editor.finish(), (Repair(code=code, nodes=names, detail=detail),)
