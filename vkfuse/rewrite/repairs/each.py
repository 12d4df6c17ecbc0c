"""The shape that most repairs have: a node is replaced where it stands, by what a function makes of it."""

import inspect
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, Final, TypeAlias

import torch
from torch import fx
from torch.export import ExportedProgram

from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.operands import defaults_of, operands


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """One exact change to the graph: a stable `code`, the nodes, and what was done with them."""

    code: str
    nodes: tuple[str, ...]
    detail: str


Repairs: TypeAlias = tuple[ExportedProgram, tuple[Repair, ...]]
RepairRule: TypeAlias = Callable[[ExportedProgram], Repairs]


Make: TypeAlias = Callable[..., fx.Node | torch.Tensor | None]


def replaces(*targets: Any, code: str, detail: str) -> Callable[[Make], RepairRule]:
    """Make a repair of what replaces one node: a function that gets each call of `targets`, without any each node.

    Of an operator with several results each is replaced by itself. The function's parameters are `editor`, `node`, the
    call, `which` of several results, and operands of the call by the names of its schema: as tensors, on which torch's
    functions become calls, where they are annotated so, else as they are. What it makes stands in front of what it
    replaces; None leaves that as it is. The function is to make nothing before it knows.
    """

    def repair_of(make: Make) -> RepairRule:
        wanted = _parameters(make, targets)

        @wraps(make)
        def repair(exported: ExportedProgram) -> Repairs:
            editor, found = GraphEditor(exported), []
            for node in exported.graph.nodes:
                call, which = _call(node) if targets else (node, None)
                if targets and (
                    call.target not in targets or isinstance(node.meta.get("val"), (tuple, list))
                ):
                    continue
                with editor.before(node):
                    new = make(**_given(editor, wanted, call, which))
                if new is not None:
                    editor.replace(node, new)
                    found.append(node.name)
            return done(editor, found, code=code, detail=detail)

        return repair

    return repair_of


def _call(node: fx.Node) -> tuple[fx.Node, int | None]:
    """The call that `node` is, or is one of several results of, and which."""
    if node.target is not operator.getitem:
        return node, None
    return node.args  # type: ignore[return-value]


_OTHERS: Final = frozenset({"editor", "node", "which"})


def _parameters(make: Make, targets: Sequence[Any]) -> Mapping[str, bool]:
    """The parameters of a function, with whether each is a tensor. TypeError for one that is no operand of a target."""
    wanted = {name: "Tensor" in str(of.annotation) for name, of in inspect.signature(make).parameters.items()}
    for names in map(defaults_of, targets) if targets else ({},):
        unknown = wanted.keys() - _OTHERS - names.keys()
        if unknown:
            raise TypeError(f"{make.__name__}: no operand {', '.join(sorted(unknown))} of each of {targets}")
    return wanted


def _given(
    editor: GraphEditor, wanted: Mapping[str, bool], call: fx.Node, which: int | None
) -> dict[str, Any]:
    given = {
        "editor": editor,
        "node": call,
        "which": which,
        **(operands(call) if wanted.keys() - _OTHERS else {}),
    }
    return {
        name: fx.node.map_arg(given[name], editor.tensor) if traced else given[name]
        for name, traced in wanted.items()
    }


def done(editor: GraphEditor, nodes: Iterable[str], *, code: str, detail: str) -> Repairs:
    """What a repair returns that did something to `nodes`; the program as it was where there are none."""
    names = tuple(nodes)
    if not names:
        return editor.program, ()
    return editor.finish(), (Repair(code=code, nodes=names, detail=detail),)
