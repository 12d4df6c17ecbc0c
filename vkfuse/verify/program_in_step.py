"""A program's calls in step, from one product by a table to the next, so that the table is made once for all of them."""

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import fx
from torch.export import ExportedProgram
from torch.export.graph_signature import OutputKind

from vkfuse.verify.errors import NotInStepError
from vkfuse.verify.rowwise import RowProduct, computed, made
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """Groups of nodes in the `order` in which all lanes go through them.

    `given` has the values of placeholders by lane, `heirs` the lanes that find what a lane has `written`; `ended` has what
    is read no more after a node. What is `shared` the first lane computes for all, and what it computes `observe` hears.
    Large products that are `left` are not computed.
    """

    order: Sequence[tuple[fx.Node, ...]]
    given: Mapping[fx.Node, Sequence[Argument]] = field(default_factory=dict)
    heirs: Sequence[Sequence[Lane]] = ()
    written: Mapping[fx.Node, fx.Node] = field(default_factory=dict)
    ended: Mapping[fx.Node, Sequence[fx.Node]]
    shared: AbstractSet[fx.Node]
    left: AbstractSet[fx.Node] = frozenset()
    observe: Callable[[fx.Node, Any], None] | None = None

    def run(self, lanes: Sequence[Lane]) -> None:
        """Run each lane up to the next product by a table, which is computed for all.

        What a lane makes on the way is still in the processor's caches when it is read, and its memory is the next lane's.
        """
        for node, values in self.given.items():  # before any lane hands on what it writes
            for lane, value in zip(lanes, values, strict=True):
                lane.put(node, value, self.ended.get(node, ()))
        shared: dict[fx.Node, Any] = {}
        ways = [self._way(at, lane, shared) for at, lane in enumerate(lanes)]
        products = [_sent(way, None) for way in ways]
        while any(product is not None for product in products):
            products = [*map(_sent, ways, computed(products))]

    def _way(self, at: int, lane: Lane, shared: dict[fx.Node, Any]) -> Generator[RowProduct, Any, None]:
        """Run a lane, which asks for products by tables, but on the way to what it writes, for which another one waits."""
        for group in (group for group in self.order if group[0] not in self.given):
            asks = self.written.keys().isdisjoint(group)
            for node in group:
                result = self._result(node, at, lane, shared)
                if isinstance(result, RowProduct) and not (result.large and node in self.left):
                    result = (yield result) if asks else made(result)
                lane.put(node, result, self.ended.get(node, ()))
                if self.observe is not None and at == 0 and node.op == "call_function":
                    self.observe(node, result)
                if node in self.written:
                    _hand_on(self.written[node], result, self.heirs[at])

    def _result(self, node: fx.Node, at: int, lane: Lane, shared: dict[fx.Node, Any]) -> Any:
        """Return what a lane makes of a node."""
        if node not in self.shared:
            return lane.run_node(node)
        if at == 0:
            shared[node] = made(lane.run_node(node))
        return shared.pop(node) if at + 1 == len(self.heirs) else shared[node]


def _hand_on(buffer: fx.Node, result: Any, heirs: Sequence[Lane]) -> None:
    """Let lanes find in a buffer what has been written to it."""
    for heir in heirs:
        heir.env[buffer] = of_type(result, getattr(buffer.meta.get("val"), "dtype", None))


def _sent(way: Generator[RowProduct, Any, None], result: Any) -> RowProduct | None:
    """Let a lane go on, and return what it asks for, None at its end."""
    try:
        return way.send(result)
    except StopIteration:
        return None
