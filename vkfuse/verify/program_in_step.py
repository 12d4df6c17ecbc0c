"""A program's calls in step: a node of all, then the next, so that what is large about it is made once for all of them."""

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Protocol

import torch
from torch import fx
from torch.export import ExportedProgram
from torch.export.graph_signature import OutputKind

from vkfuse.verify.errors import NotInStepError
from vkfuse.verify.rowwise import computed, made
from vkfuse.verify.steps import Argument


class Lane(Protocol):
    """One call of the program in one arithmetic: the values of its nodes, and how it goes on."""

    env: dict[fx.Node, Any]

    def run_node(self, node: fx.Node) -> Any:
        """Return what a node makes of values of its inputs."""

    def put(self, node: fx.Node, result: Any, ended: Sequence[fx.Node]) -> None:
        """Keep a node's result, and forget what is read no more."""


def of_type(value: Argument, kind: torch.dtype | None) -> Argument:
    """What a buffer of a type is after a copy of `value` to it, whose cast a functional program leaves out."""
    return value if kind is None or not isinstance(value, torch.Tensor) else value.to(kind)


def user_nodes(exported: ExportedProgram) -> list[Any]:
    """What the graph returns to its user: nodes, and numbers as they are."""
    (end,) = exported.graph.find_nodes(op="output")
    specs = zip(exported.graph_signature.output_specs, end.args[0], strict=True)
    return [node for spec, node in specs if spec.kind is OutputKind.USER_OUTPUT]


def written_by(exported: ExportedProgram) -> dict[fx.Node, fx.Node]:
    """The placeholder of each buffer that is written, by the node that is its new value. NotInStepError."""
    (end,) = exported.graph.find_nodes(op="output")
    placeholders = {node.name: node for node in exported.graph.find_nodes(op="placeholder")}
    buffers = {name: placeholders[of] for of, name in exported.graph_signature.inputs_to_buffers.items()}
    found: dict[fx.Node, fx.Node] = {}
    for spec, node in zip(exported.graph_signature.output_specs, end.args[0], strict=True):
        if spec.kind is OutputKind.BUFFER_MUTATION:
            if node.op != "call_function" or node in found or spec.target not in buffers:
                raise NotInStepError("a buffer that is written in another way")
            found[node] = buffers[spec.target]
    return found


def in_order(exported: ExportedProgram, written: Mapping[fx.Node, fx.Node]) -> list[tuple[fx.Node, ...]]:
    """The nodes but for the output, in an order in which a call can follow one that is ahead of it by no more than a group.

    What leads from a buffer to its new value is one group, in front of all else that reads the buffer. NotInStepError where
    that cannot be.
    """
    at = {node: number for number, node in enumerate(exported.graph.nodes)}
    groups: dict[fx.Node, tuple[fx.Node, ...]] = {}
    for node, buffer in written.items():
        group = tuple(sorted(_between(buffer, node, at), key=at.__getitem__))
        if groups.keys() & {*group}:
            raise NotInStepError("buffers are written by way of each other")
        groups |= dict.fromkeys(group, group)
    writers = {buffer: node for node, buffer in written.items()}
    order: dict[tuple[fx.Node, ...], None] = {}
    begun: set[tuple[fx.Node, ...]] = set()

    def emit(node: fx.Node) -> None:
        group = groups.get(node, (node,))
        if group in order:
            return
        if group in begun:
            raise NotInStepError("buffers are written by way of each other")
        begun.add(group)
        for read in (read for node in group for read in node.all_input_nodes if read not in group):
            emit(read)
            if writers.get(read, node) not in group:
                emit(writers[read])
        order[group] = None

    for node in at:
        if node.op != "output":
            emit(node)
    return [*order]


def _between(buffer: fx.Node, writer: fx.Node, at: Mapping[fx.Node, int]) -> set[fx.Node]:
    """What is computed from a buffer on the way to its new value, that included."""
    after, todo = set[fx.Node](), [buffer]
    while todo:
        users = {user for user in todo.pop().users if at[user] <= at[writer]} - after
        after |= users
        todo.extend(users)
    found, todo = {writer}, [writer]
    while todo:
        reads = after.intersection(todo.pop().all_input_nodes) - found
        found |= reads
        todo.extend(reads)
    return found


def last_uses(order: Iterable[fx.Node], wanted: Iterable[Any]) -> dict[fx.Node, list[fx.Node]]:
    """What no node reads after a node, and is not wanted in the end."""
    last: dict[fx.Node, fx.Node] = {}
    for node in order:
        last |= dict.fromkeys((node, *node.all_input_nodes), node)
    ended: dict[fx.Node, list[fx.Node]] = {}
    for read in last.keys() - {*wanted}:
        ended.setdefault(last[read], []).append(read)
    return ended


def run_in_step(
    order: Sequence[tuple[fx.Node, ...]],
    runners: Sequence["Lane"],
    given: Mapping[fx.Node, Sequence[Argument]],
    heirs: Sequence[Sequence["Lane"]],
    written: Mapping[fx.Node, fx.Node],
    ended: Mapping[fx.Node, Sequence[fx.Node]],
    shared: AbstractSet[fx.Node],
) -> None:
    """Run groups of nodes, on the placeholders given to each runner; `heirs` find what it has `written`."""
    for group in order:
        if written.keys().isdisjoint(group):
            (node,) = group
            results = _of_all(node, runners, given, shared)
            for runner, result in zip(runners, results, strict=True):
                runner.put(node, result, ended.get(node, ()))
            continue
        for runner, after in zip(runners, heirs, strict=True):
            for node in group:
                result = made(runner.run_node(node))
                runner.put(node, result, ended.get(node, ()))
                for heir in after if node in written else ():
                    buffer = written[node]
                    heir.env[buffer] = of_type(result, getattr(buffer.meta.get("val"), "dtype", None))


def _of_all(
    node: fx.Node,
    runners: Sequence["Lane"],
    given: Mapping[fx.Node, Sequence[Argument]],
    shared: AbstractSet[fx.Node],
) -> Sequence[Any]:
    """Return what each runner makes of a node."""
    if node.op == "placeholder":
        return given[node]
    if node in shared:
        return [*computed([runners[0].run_node(node)])] * len(runners)
    return computed([runner.run_node(node) for runner in runners])
