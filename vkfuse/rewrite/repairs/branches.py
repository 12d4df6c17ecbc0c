"""What a ``torch.cond`` branch dequantizes is computed outside and handed in.

A branch sees the program's weights as operands: what stands there between a quantized table and its reader can be
evaluated no more than lowered. Outside it is a constant expression like any other. Nor has the CPU, which runs branches,
kernels for activations that are quantized and dequantized by torchao's operators: outside these are arithmetic.
"""

from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram

from vkfuse.rewrite.activations import rounding_of
from vkfuse.rewrite.constants import Constants
from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.grids import weight_readers
from vkfuse.rewrite.repairs.each import Repairs, done


def hoist_branch_tables(exported: ExportedProgram) -> Repairs:
    """Move each dequantization, of constants and of activations with ranges of their own, out of ``torch.cond``."""
    constants = Constants(exported)
    found = [n for n in exported.graph.nodes if n.target is torch.ops.higher_order.cond]
    editor, names = GraphEditor(exported), []
    for node in found:
        branches = [editor.submodule(branch) for branch in node.args[1:3]]
        hoisted = [inner for branch in branches for inner in _hoistable(branch, node, constants)]
        if hoisted:
            names.append(node.name)
            _hoist(editor, node, branches, hoisted)
    return done(editor, names, code="branch-tables-hoisted", detail="dequantized before the condition")


def _hoistable(branch: fx.GraphModule, node: fx.Node, constants: Constants) -> list[fx.Node]:
    """Dequantizations in `branch`: of operands that are constants outside, or of rows that it quantizes.

    Rows stay where a condition stands in the branch, on which they may depend.
    """
    alone = not branch.graph.find_nodes(op="get_attr")
    operands = dict(zip(branch.graph.find_nodes(op="placeholder"), node.args[3], strict=True))  # type: ignore[arg-type]
    return [
        inner
        for inner in branch.graph.nodes
        if (
            inner.target in weight_readers()
            and all(operands.get(i) in constants for i in inner.all_input_nodes)
        )
        or (alone and rounding_of(inner) is not None)
    ]


def _hoist(
    editor: GraphEditor, node: fx.Node, branches: list[fx.GraphModule], hoisted: list[fx.Node]
) -> None:
    """Compute each node outside, give it to all branches as a new operand, and drop operands that nothing reads.

    What computes the same is one operand: handed in twice it would alias, which ``torch.cond`` forbids.
    """
    copy = editor.node(node)
    operands: list[Any] = list(copy.args[3])  # type: ignore[arg-type]
    known = {
        of: value
        for branch in branches
        for of, value in zip(branch.graph.find_nodes(op="placeholder"), operands, strict=True)
    }
    same: dict[fx.Node, list[fx.Node]] = {}
    with editor.before(node):
        for inner in hoisted:
            same.setdefault(_outside(editor, inner, known), []).append(inner)
    for value, inners in same.items():
        for branch in branches:
            placeholder = _new_placeholder(branch, value, f"hoisted_{len(operands)}")
            for old in inners:
                if old.graph is branch.graph:
                    old.replace_all_uses_with(placeholder)
        operands.append(value)
    for branch in branches:
        branch.graph.eliminate_dead_code()
    kept = _read_operands(branches)
    copy.args = (*copy.args[:3], tuple(operands[i] for i in kept))
    for branch in branches:
        branch.recompile()


def _outside(editor: GraphEditor, inner: fx.Node, known: dict[fx.Node, Any]) -> Any:
    """The node that computes the same as a branch's, and all that it is made of, from the operands of the condition."""
    if inner not in known:
        args, kwargs = fx.node.map_arg((inner.args, inner.kwargs), lambda of: _outside(editor, of, known))
        key = ("outside", repr((inner.target, args, kwargs)))
        known[inner] = editor.once(key, lambda: editor.call(inner.target, *args, **kwargs))
    return known[inner]


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
