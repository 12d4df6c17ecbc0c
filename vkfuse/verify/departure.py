"""Which operator is to blame: file and program are run side by side and their intermediate values matched.

A value of the file is known when the program has one with the same numbers, in the same or another order.
What made a known value, directly or through others, was right; the first operator that was not is the one.
"""

import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import fx

from vkfuse.verify.compare import RELATIVE_LIMITS
from vkfuse.verify.reference import EAGER, Arithmetic, Reference
from vkfuse.verify.session import Session
from vkfuse.verify.steps import COPY, Argument, Step
from vkfuse.verify.verdict import Departure

_LEAST_VALUES: Final = 4  # smaller results match by chance
_MOST_VALUES: Final = 1 << 26
_PREPACK: Final = "et_vk.prepack.default"
Order = Callable[[torch.Tensor], torch.Tensor]
_SOURCE_LINE: Final = re.compile(r'File "([^"]+)", line (\d+)')


@dataclass(frozen=True, slots=True, kw_only=True)
class _Made:
    """A result and who made it: places or nodes it was computed from, and whether it can be to blame."""

    label: Any
    values: tuple[torch.Tensor, ...]
    sources: tuple[int, ...]
    judged: bool


def find_departure(
    session: Session,
    reference: Reference,
    inputs: tuple[Argument, ...],
    arithmetic: Arithmetic = EAGER,
    noise: float = 0.0,
) -> Departure | None:
    """Return the first operator of the file whose result is nowhere in the program; None where all are."""
    session.reset()
    reference.reset()
    expected = _program_values(reference, inputs, arithmetic)
    got = _file_values(session, inputs)
    for orders in _ORDERS:
        culprit = _first(got, _known(got, expected, noise, orders))
        if culprit is not None:
            node = _first(expected, _known(expected, got, noise, orders))
            return _departure(session, got, culprit, node)
    return None


def _departure(session: Session, got: Sequence[_Made], culprit: _Made, node: _Made | None) -> Departure:
    step = culprit.label if node is None else _namesake(got, culprit, node.label)
    return Departure(
        operator=step.name,
        where=step.where,
        node="" if node is None else f"{node.label.target}",
        source="" if node is None else source_of(node.label),
        behaviours=tuple(code.code for code, places in session.noted.items() if step.where in places),
    )


def _namesake(got: Sequence[_Made], culprit: _Made, node: fx.Node) -> Step:
    """Return the step that computes `node` by its name, where the culprit only met what that one left undone.

    A value that two operators of the file share hides the second of them.
    """
    packet = str(node.target).split(".")[1] if str(node.target).count(".") else str(node.target)
    step: Step = culprit.label
    if packet in step.name:
        return step
    before = [
        entry.label for entry in got[: got.index(culprit)] if entry.judged and packet in entry.label.name
    ]
    return before[-1] if before and _reads(got, culprit, before[-1]) else step


def _reads(got: Sequence[_Made], entry: _Made, step: Step) -> bool:
    """Whether a result was computed from a step's, directly or after copies."""
    waiting, seen = list(entry.sources), set()
    while waiting:
        number = waiting.pop()
        if got[number].label is step:
            return True
        if number not in seen and got[number].label.name in {COPY, _PREPACK}:
            waiting.extend(got[number].sources)
        seen.add(number)
    return False


def source_of(node: fx.Node) -> str:
    """Return `file:line` of a node, or its module; empty where the program kept neither."""
    lines: list[tuple[str, str]] = _SOURCE_LINE.findall(node.meta.get("stack_trace") or "")
    own = [line for line in lines if "/site-packages/torch/" not in line[0]]
    if lines:
        return ":".join((own or lines)[-1])
    modules: Mapping[str, Any] = node.meta.get("nn_module_stack") or {}
    return str(next(reversed(list(modules.values())), ("",))[0])


def _program_values(
    reference: Reference, inputs: tuple[Argument, ...], arithmetic: Arithmetic
) -> list[_Made]:
    """Results of the nodes that an input reaches."""
    made: list[_Made] = []
    places: dict[fx.Node, int] = {}
    reached = _reached(reference.exported.graph)

    def watch(node: fx.Node, result: Any) -> None:
        places[node] = len(made)
        sources = tuple(places[source] for source in node.all_input_nodes if source in places)
        values = _tensors(result)
        made.append(
            _Made(label=node, values=values, sources=sources, judged=node in reached and bool(values))
        )

    reference(inputs, watch, arithmetic)
    return made


def _reached(graph: fx.Graph) -> set[fx.Node]:
    """Nodes that compute from a user input: a placeholder that torch did not name after a constant."""
    reached: set[fx.Node] = set()
    for node in graph.nodes:
        is_input = node.op == "placeholder" and not node.name.startswith(("p_", "b_", "c_", "obj_"))
        if is_input or any(source in reached for source in node.all_input_nodes):
            reached.add(node)
    return reached


def _file_values(session: Session, inputs: tuple[Argument, ...]) -> list[_Made]:
    """Results of the file's operators that an input reaches."""
    made: list[_Made] = []
    writers: dict[Hashable, int] = {}
    reached: set[int] = set()
    entered = set(session.input_places)

    def watch(step: Step) -> None:
        sources = tuple(dict.fromkeys(writers[place] for place in step.reads if place in writers))
        number = len(made)
        if any(place in entered and place not in writers for place in step.reads) or reached & set(sources):
            reached.add(number)
        values = (
            () if step.name == COPY else tuple(value for output in step.outputs for value in _tensors(output))
        )
        label = Step(name=step.name, where=step.where, inputs=(), outputs=())
        judged = number in reached and bool(values)
        made.append(_Made(label=label, values=values, sources=sources, judged=judged))
        writers.update(dict.fromkeys(step.writes, number))

    session(inputs, watch)
    return made


def _tensors(result: Any) -> tuple[torch.Tensor, ...]:
    """Return copies of the tensors of a result that are worth matching."""
    members = result if isinstance(result, tuple | list) else (result,)
    return tuple(
        member.detach().clone()
        for member in members
        if isinstance(member, torch.Tensor) and _LEAST_VALUES <= member.numel() <= _MOST_VALUES
    )


def _known(
    made: Sequence[_Made], others: Sequence[_Made], noise: float, orders: Sequence[Order]
) -> list[bool]:
    """Whether each result is right: found among the others, or used for one that is."""
    by_size: dict[int, list[torch.Tensor]] = {}
    for other in others:
        for value in other.values:
            by_size.setdefault(value.numel(), []).append(value)
    right = [
        bool(entry.values)
        and all(_found(value, by_size.get(value.numel(), ()), noise, orders) for value in entry.values[:1])
        for entry in made
    ]
    for number in range(len(made) - 1, -1, -1):
        if right[number]:
            for source in made[number].sources:
                right[source] = True
    return right


def _found(
    value: torch.Tensor, candidates: Sequence[torch.Tensor], noise: float, orders: Sequence[Order]
) -> bool:
    return any(_alike(value, candidate, noise, order) for order in orders for candidate in candidates)


def _flat(value: torch.Tensor) -> torch.Tensor:
    return value.reshape(-1).double()


def _sorted(value: torch.Tensor) -> torch.Tensor:
    return _flat(value).sort().values


# Numbers in another order count as known at first: the file transposes where the program does not. Where all are
# known by that, order must be what is wrong.
_ORDERS: Final[tuple[tuple[Order, ...], ...]] = ((_flat, _sorted), (_flat,))


def _alike(value: torch.Tensor, other: torch.Tensor, noise: float, order: Order) -> bool:
    """Whether two tensors hold the same numbers, within what passes for their types."""
    if value.is_floating_point() != other.is_floating_point():
        return False
    share = max(RELATIVE_LIMITS.get(value.dtype, 0.0), RELATIVE_LIMITS.get(other.dtype, 0.0))
    a, b = order(value), order(other)
    largest = float(b.abs().nan_to_num(0.0, 0.0, 0.0).max())
    error = torch.where((a == b) | (a.isnan() & b.isnan()), 0.0, (a - b).abs())
    return bool((error <= share * largest + noise).all())


def _first(made: Sequence[_Made], right: Sequence[bool]) -> _Made | None:
    """Return the first result that is to blame."""
    return next((entry for entry, fine in zip(made, right, strict=True) if entry.judged and not fine), None)
