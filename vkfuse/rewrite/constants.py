"""Evaluate what a program computes from its constants alone."""

import operator
from collections.abc import Hashable, Iterator
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram

from vkfuse.program.content import Bits
from vkfuse.program.parts import constants_of
from vkfuse.rewrite.operands import is_dynamic, is_pure


class Constants:
    """Which nodes of a graph no input reaches, and what they compute.

    A mutable buffer is no constant; neither is anything random or of a symbolic size.
    """

    def __init__(self, exported: ExportedProgram) -> None:
        mutated = set(exported.graph_signature.buffers_to_mutate.values())
        buffers = exported.graph_signature.inputs_to_buffers
        self._stored = {k: v for k, v in constants_of(exported).items() if buffers.get(k) not in mutated}
        self._constant: set[fx.Node] = set()
        self.derived: dict[Hashable, object] = {}  # what was worked out of them, by whoever worked it out
        for node in exported.graph.nodes:
            if self._is_constant(node):
                self._constant.add(node)

    def __contains__(self, node: object) -> bool:
        """Whether `node` is computed from constants alone."""
        return node in self._constant

    def _is_constant(self, node: fx.Node) -> bool:
        if node.op == "placeholder":
            return node.name in self._stored
        if node.op != "call_function" or not all(i in self._constant for i in node.all_input_nodes):
            return False
        if _has_symbols(node):
            return False
        return is_pure(node.target) or node.target is operator.getitem

    def value(self, node: fx.Node) -> torch.Tensor:
        """The tensor that `node` computes, any shape and dtype; nothing is kept. `node` must be in this set."""
        env: dict[fx.Node, Any] = {}
        for step in self.expression(node):
            if step.op == "placeholder":
                env[step] = self._stored[step.name].detach()
            else:
                args, kwargs = fx.node.map_arg((step.args, step.kwargs), env.__getitem__)
                with torch.no_grad():
                    env[step] = step.target(*args, **kwargs)  # type: ignore[operator]
        result = env[node]
        if not isinstance(result, torch.Tensor):
            raise TypeError(f"{node.name} computes no tensor")
        return result

    def expression(self, node: fx.Node) -> list[fx.Node]:
        """`node` and all that it is computed from, in order of execution."""
        order: dict[fx.Node, None] = {}
        stack: list[tuple[fx.Node, bool]] = [(node, False)]
        while stack:
            current, expanded = stack.pop()
            if current in order:
                continue
            if expanded:
                order[current] = None
            else:
                stack.append((current, True))
                stack.extend((i, False) for i in current.all_input_nodes)
        return list(order)

    def key(self, node: fx.Node) -> Hashable:
        """What `node` is computed from and how: constants with equal keys are equal, of whatever programs they are."""
        steps = self.expression(node)
        place = {step: i for i, step in enumerate(steps)}
        return tuple(
            Bits(self._stored[step.name])
            if step.op == "placeholder"
            else (str(step.target), str(fx.node.map_arg((step.args, step.kwargs), place.__getitem__)))
            for step in steps
        )

    def frontier(self, graph: fx.Graph) -> Iterator[fx.Node]:
        """Computed constants that something other than a constant reads."""
        for node in graph.nodes:
            if node in self and node.op == "call_function" and any(u not in self for u in node.users):
                yield node


def _has_symbols(node: fx.Node) -> bool:
    value = node.meta.get("val")
    values = value if isinstance(value, (tuple, list)) else (value,)
    numbers = (torch.SymInt, torch.SymFloat, torch.SymBool)
    return any(isinstance(v, numbers) or (isinstance(v, torch.Tensor) and is_dynamic(v)) for v in values)
