"""Which operator is to blame: file and program are run side by side and their intermediate values matched.

A value of the file is known when the program has one with the same numbers; of an operator that only orders
values, in any order, since the file transposes where the program does not.
What made a known value, directly or through others, was right; the first operator that was not is the one.
"""

import re
from collections.abc import Hashable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import fx
from torch._ops import OpOverload
from torch.export import ExportedProgram

from vkfuse.runtime.operators.moves import PREPACK
from vkfuse.verify.compare import RELATIVE_LIMITS
from vkfuse.verify.domain import ORDERS_VALUES, packet_of
from vkfuse.verify.reference import EAGER, Arithmetic, Reference
from vkfuse.verify.session import Session
from vkfuse.verify.steps import COPY, Argument, Step
from vkfuse.verify.verdict import Departure


class Numbers:
    """The values of a tensor, and what they have in common in any order; NaN counts as zero and is compared apart."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.flat = tensor.detach().reshape(-1).clone()
        self.is_float = tensor.is_floating_point()
        self.share = RELATIVE_LIMITS.get(tensor.dtype, 0.0)
        exact = self.flat.double()
        self.undefined = int(exact.isnan().sum())
        exact = exact.nan_to_num()
        self.low, self.high = float(exact.min()), float(exact.max())
        mean, rms = float(exact.mean()), float(exact.square().mean().sqrt())
        # Each differs by no more than the largest difference of any two values, whatever their order.
        self.summary = (self.low, self.high, mean, rms)
        self._sorted: torch.Tensor | None = None

    def __len__(self) -> int:
        return self.flat.numel()

    def like(self, other: "Numbers", noise: float, *, any_order: bool) -> bool:
        """Whether both hold the same numbers within what passes for their types, in the same or any order.

        `noise` is what else passes, as a share of the largest value.
        """
        if self.is_float != other.is_float or len(self) != len(other) or self.undefined != other.undefined:
            return False
        largest = max(abs(other.low), abs(other.high))
        limit = (max(self.share, other.share) + noise) * largest
        if any(abs(a - b) > limit for a, b in zip(self.summary, other.summary, strict=True)):
            return False
        if _within(self.flat, other.flat, limit):
            return True
        return any_order and _within(self.sorted(), other.sorted(), limit)

    def sorted(self) -> torch.Tensor:
        """Return the values in ascending order, sorted once."""
        if self._sorted is None:
            self._sorted = self.flat.sort().values
        return self._sorted


def _within(a: torch.Tensor, b: torch.Tensor, limit: float) -> bool:
    if limit == 0 and a.dtype is b.dtype and not a.is_floating_point():
        return torch.equal(a, b)
    x, y = a.double(), b.double()
    same = (x == y) | (x.isnan() & y.isnan())
    return bool((same | ((x - y).abs() <= limit)).all())


_LEAST_VALUES: Final = 4  # smaller results match by chance
_MOST_VALUES: Final = 1 << 26
_FAMILIES: Final = {"lookup": ("embedding",), "linear": ("linear", "mm.", "matmul"), "convolution": ("conv",)}
_SOURCE_LINE: Final = re.compile(r'File "([^"]+)", line (\d+)')


@dataclass(frozen=True, slots=True, kw_only=True)
class _Made:
    """A result and who made it: what it was computed from, whether it can be to blame, or only orders values."""

    label: Any
    values: tuple[Numbers, ...]
    sources: tuple[int, ...] = ()
    judged: bool = False
    moves: bool = False
    family: str = ""


def find_departure(
    session: Session,
    reference: Reference,
    inputs: tuple[Argument, ...],
    arithmetic: Arithmetic = EAGER,
    noise: float = 0.0,
) -> Departure | None:
    """Return the first operator of the file whose result is nowhere in the program; None where all are.

    Both sides begin with the state that they have.
    """
    expected = _program_values(reference, inputs, arithmetic)
    got = _file_values(session, inputs)
    culprit = _first(got, _known(got, expected, noise))
    if culprit is None:
        return _at_a_border(session)
    return _departure(session, got, culprit, _first(expected, _known(expected, got, noise)))


def _at_a_border(session: Session) -> Departure | None:
    """Return the copy between the program and a delegate that changes what it copies, where there is one."""
    for behaviour, places in session.noted.items():
        for where in places:
            if where.call is None:  # of a delegate, not of an operator in it
                return Departure(operator=COPY, where=str(where), node="", source="", behaviours=(behaviour,))
    return None


def _departure(session: Session, got: Sequence[_Made], culprit: _Made, node: _Made | None) -> Departure:
    step = culprit.label if node is None else _namesake(got, culprit, node.label)
    return Departure(
        operator=step.name,
        where=str(step.where),
        node="" if node is None else f"{node.label.target}",
        source="" if node is None else source_of(node.label),
        behaviours=tuple(
            code
            for code, places in session.noted.items()
            if code.effect != "note" and {step.where, step.where.around} & {*places}
        ),
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
        if number not in seen and got[number].label.name in {COPY, PREPACK}:
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
    """Inputs, and results of the nodes that they reach."""
    made = [_Made(label=None, values=_numbers(value)) for value in inputs]
    places: dict[fx.Node, int] = {}
    reached = _reached(reference.exported)

    def watch(node: fx.Node, result: Any) -> None:
        places[node] = len(made)
        sources = tuple(places[source] for source in node.all_input_nodes if source in places)
        values = _numbers(result) if node in reached else ()
        made.append(
            _Made(
                label=node,
                values=values,
                sources=sources,
                judged=bool(values) and isinstance(node.target, OpOverload),
                moves=packet_of(node) in ORDERS_VALUES,
                family=_family(str(node.target)),
            )
        )

    reference(inputs, watch, arithmetic)
    return made


def _reached(exported: ExportedProgram) -> set[fx.Node]:
    """Nodes that compute from a user input, and the inputs."""
    inputs = {str(name) for name in exported.graph_signature.user_inputs}
    reached: set[fx.Node] = set()
    for node in exported.graph.nodes:
        if (node.op == "placeholder" and node.name in inputs) or any(
            source in reached for source in node.all_input_nodes
        ):
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
        values = _numbers(step.outputs) if number in reached and step.name != COPY else ()
        made.append(
            _Made(
                label=Step(name=step.name, where=step.where, inputs=(), outputs=()),
                values=values,
                sources=sources,
                judged=bool(values),
                moves=any(part in ORDERS_VALUES for part in step.name.replace("::", ".").split(".")),
                family=_family(step.name),
            )
        )
        writers.update(dict.fromkeys(step.writes, number))

    session(inputs, watch)
    return made


def _numbers(result: Any) -> tuple[Numbers, ...]:
    """Return the tensors of a result that are worth matching."""
    members = result if isinstance(result, tuple | list) else (result,)
    tensors = [member for member in members if isinstance(member, torch.Tensor)]
    return tuple(Numbers(tensor) for tensor in tensors if _LEAST_VALUES <= tensor.numel() <= _MOST_VALUES)


def _known(made: Sequence[_Made], others: Sequence[_Made], noise: float) -> list[bool]:
    """Whether each result is right: found among the others, or used for one that is.

    That numbers were found in another order says nothing of what they were computed from.
    """
    by_size: dict[int, list[Numbers]] = {}
    families: set[tuple[str, int]] = set()
    for other in others:
        for value in other.values:
            by_size.setdefault(len(value), []).append(value)
            families.add((other.family, len(value)))
    right = [_found(entry, by_size, noise, any_order=False) for entry in made]
    for number in range(len(made) - 1, -1, -1):
        for source in made[number].sources if right[number] else ():
            right[source] = right[source] or not _has_twin(made[source], families)
    return [
        fine or (entry.moves and _found(entry, by_size, noise, any_order=True))
        for entry, fine in zip(made, right, strict=True)
    ]


def _has_twin(entry: _Made, families: AbstractSet[tuple[str, int]]) -> bool:
    """Whether the other side has results of the same kind and size, so that this one should be among them."""
    return bool(entry.family) and any((entry.family, len(value)) in families for value in entry.values)


def _family(name: str) -> str:
    """Return what kind of weighty operator a name stands for; empty for others."""
    return next((family for family, parts in _FAMILIES.items() if any(part in name for part in parts)), "")


def _found(entry: _Made, by_size: Mapping[int, Sequence[Numbers]], noise: float, *, any_order: bool) -> bool:
    if not entry.values:
        return False
    value = entry.values[0]
    return any(value.like(other, noise, any_order=any_order) for other in by_size.get(len(value), ()))


def _first(made: Sequence[_Made], right: Sequence[bool]) -> _Made | None:
    """Return the first result that is to blame."""
    return next((entry for entry, fine in zip(made, right, strict=True) if entry.judged and not fine), None)
