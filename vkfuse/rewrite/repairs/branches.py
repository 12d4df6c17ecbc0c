"""Constants that a ``torch.cond`` branch computes are computed outside and handed in.

A branch sees the program's weights as operands: what stands there between a quantized table and its reader can be
evaluated no more than lowered. Outside it is a constant expression like any other.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram

from vkfuse.rewrite.constants import Constants
from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.grids import weight_readers
from vkfuse.rewrite.repairs.each import Repairs, done


def hoist_branch_tables(exported: ExportedProgram) -> Repairs:
    """Move each dequantization of constants out of the branches of ``torch.cond``."""
    constants = Constants(exported)
    found = [n for n in exported.graph.nodes if n.target is torch.ops.higher_order.cond]
    editor, names = GraphEditor(exported), []
    for node in found:
        hoisted = [h for branch in _branches(node, editor) for h in _hoistable(branch, node, constants)]
        if hoisted:
            names.append(node.name)
            _hoist(editor, node, hoisted)
    return done(editor, names, code="branch-tables-hoisted", detail="tables dequantized before the condition")


def _branches(node: fx.Node, editor: GraphEditor) -> list[fx.GraphModule]:
    return [editor.submodule(branch) for branch in node.args[1:3]]  # type: ignore[arg-type]


def _hoistable(
    branch: fx.GraphModule, node: fx.Node, constants: Constants
) -> Iterator[tuple[fx.GraphModule, fx.Node]]:
    """Dequantizations in `branch` that read operands which are constants outside."""
    operands = dict(zip(branch.graph.find_nodes(op="placeholder"), node.args[3], strict=True))  # type: ignore[arg-type]
    for inner in branch.graph.nodes:
        if inner.target in weight_readers() and all(
            operands.get(i) in constants for i in inner.all_input_nodes
        ):
            yield branch, inner


def _hoist(editor: GraphEditor, node: fx.Node, hoisted: list[tuple[fx.GraphModule, fx.Node]]) -> None:
    """Compute each node outside, give it to all branches as a new operand, and drop operands that nothing reads."""
    copy = editor.node(node)
    operands: list[Any] = list(copy.args[3])  # type: ignore[arg-type]
    branches = [editor.submodule(b) for b in node.args[1:3]]  # type: ignore[arg-type]
    for same in _equal(hoisted, operands):
        branch, inner = same[0]
        with editor.before(node):
            args, kwargs = fx.node.map_arg((inner.args, inner.kwargs), _outer(branch, operands).__getitem__)
            value = editor.call(inner.target, *args, **kwargs)
        for other in branches:
            placeholder = _new_placeholder(other, inner, f"hoisted_{len(operands)}")
            for owner, old in same:
                if owner is other:
                    old.replace_all_uses_with(placeholder)
                    other.graph.erase_node(old)
        operands.append(value)
    kept = _read_operands(branches)
    copy.args = (*copy.args[:3], tuple(operands[i] for i in kept))
    for branch in branches:
        branch.recompile()


def _outer(branch: fx.GraphModule, operands: list[Any]) -> dict[fx.Node, Any]:
    """The node outside that each placeholder of `branch` stands for."""
    return dict(zip(branch.graph.find_nodes(op="placeholder"), operands, strict=True))


def _equal(
    hoisted: list[tuple[fx.GraphModule, fx.Node]], operands: list[Any]
) -> list[list[tuple[fx.GraphModule, fx.Node]]]:
    """Group what computes the same outside: handed in twice it would alias, which ``torch.cond`` forbids."""
    groups: dict[str, list[tuple[fx.GraphModule, fx.Node]]] = {}
    for branch, inner in hoisted:
        arguments = fx.node.map_arg((inner.args, inner.kwargs), _outer(branch, operands).__getitem__)
        groups.setdefault(repr((inner.target, arguments)), []).append((branch, inner))
    return list(groups.values())


def _new_placeholder(branch: fx.GraphModule, like: fx.Node, name: str) -> fx.Node:
    last = list(branch.graph.find_nodes(op="placeholder"))[-1]
    with branch.graph.inserting_after(last):
        node = branch.graph.placeholder(name)
    node.meta["val"] = like.meta["val"]
    return node


def _read_operands(branches: list[fx.GraphModule]) -> list[int]:
    """Positions of the operands that some branch reads; the placeholders of the others are erased."""
    placeholders = [list(b.graph.find_nodes(op="placeholder")) for b in branches]
    kept = [i for i, nodes in enumerate(zip(*placeholders, strict=True)) if any(n.users for n in nodes)]
    for branch, nodes in zip(branches, placeholders, strict=True):
        for i, placeholder in enumerate(nodes):
            if i not in kept:
                branch.graph.erase_node(placeholder)
    return kept
