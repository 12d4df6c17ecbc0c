"""Which axes of a delegate's tensors vary from run to run, as far as a file tells, and the judge asked of its calls so.

A delegate's graph has greatest sizes only. That a tensor is of a dynamic shape stands in the method around it, for what
crosses the delegate's border, and not along which axes. The records' axes carry it through the graph, both ways: an axis
that a weight is multiplied along does not vary, a size that a graph asks for does.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, TypeAlias

from vkfuse.lint.operands import Reader
from vkfuse.pte.delegates import VulkanDelegate, vulkan_delegates
from vkfuse.pte.enums import ShapeDynamism
from vkfuse.pte.model import DelegateCall, Method, PteFile, Tensor, once_a_file
from vkfuse.pte.place import Place
from vkfuse.pte.vulkan import OperatorCall, ValueList, VkTensor
from vkfuse.runtime.axes import OUTPUT, VARIES, Axis, Follows, followed
from vkfuse.runtime.codes import Code, Objection
from vkfuse.runtime.judge import judge
from vkfuse.runtime.operators import record_of
from vkfuse.runtime.versions import Runtime

_OUTSIDE: Final = -1  # in the place of a delegate: a value of the method
_MOST: Final = 4_000_000  # axes that are followed in a method; of more, nothing is told
_MOST_CASES: Final = 4  # tensors of which each open axis is tried
Key: TypeAlias = tuple[int, int, int]  # delegate, value, axis
_VARIES: Final[Key] = (_OUTSIDE, -1, 0)
Known: TypeAlias = Mapping[int, frozenset[int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Varying:
    """Axes by value of a delegate's graph: those that `surely` vary, and those that the file leaves open as well.

    Of a tensor at the border with more than one open axis one varies: `cases` have, for each such tensor, what surely
    varies with each of its axes.
    """

    surely: Known = field(default_factory=dict)
    perhaps: Known = field(default_factory=dict)
    cases: tuple[tuple[Known, ...], ...] = ()


@once_a_file
def varying(pte: PteFile) -> Mapping[Place, Varying]:
    """Return what varies in each Vulkan delegate. FormatError where a blob is malformed."""
    delegates = vulkan_delegates(pte).values()
    found: dict[Place, Varying] = {}
    for method in pte.methods:
        inside = {each.place.delegate: each for each in delegates if each.place.method == method.name}
        found |= _of_method(method, {at: each for at, each in inside.items() if at is not None})
    return MappingProxyType(found)


def _of_method(method: Method, inside: Mapping[int, VulkanDelegate]) -> Iterator[tuple[Place, Varying]]:
    dynamic = [*_dynamic(method, inside)]
    relations = [*_no_more_than(_MOST, _relations(method, inside))] if dynamic else []
    if not relations:
        return
    known = _solved(relations)
    left = ([axis for axis in axes if axis not in known] for axes in dynamic)
    untold = [axes for axes in dict.fromkeys(map(tuple, left)) if axes][:_MOST_CASES]
    cases = [[_solved(relations, axis) for axis in axes] for axes in untold]
    for number, delegate in inside.items():
        varies = Varying(
            surely=_axes(number, delegate, known, True),
            perhaps=_axes(number, delegate, known, True, None),
            cases=tuple(tuple(_axes(number, delegate, each, True) for each in of) for of in cases),
        )
        yield delegate.place, varies


def _axes(number: int, delegate: VulkanDelegate, known: "_Told", *wanted: bool | None) -> Known:
    found = {
        index: frozenset(at for at in range(len(value.dims)) if known.get((number, index, at)) in wanted)
        for index, value in enumerate(delegate.graph.values)
        if isinstance(value, VkTensor) and not value.constant
    }
    return {index: axes for index, axes in found.items() if axes}


# --- what the file says, as relations of axes: (axis, those that it follows, whether surely)

Relation: TypeAlias = tuple[Key, tuple[Key, ...], bool]


def _no_more_than(most: int, relations: Iterator[Relation]) -> Iterator[Relation]:
    """Yield all, or nothing where they are of more axes than that."""
    found, count = [], 0
    for relation in relations:
        found.append(relation)
        count += 1 + len(relation[1])
        if count > most:
            return
    yield from found


def _relations(method: Method, inside: Mapping[int, VulkanDelegate]) -> Iterator[Relation]:
    for axes, value, within in _crossing(method, inside):
        static = value.dynamism is ShapeDynamism.STATIC
        if not static:
            yield _VARIES, axes, True
        yield from (
            (axis, (), True) for axis, size in zip(axes, value.sizes, strict=True) if static or size <= 1
        )
        yield from ((inner, (axis,), True) for inner, axis in zip(within, axes, strict=False))
    for number, delegate in inside.items():
        yield from _fixed(number, delegate)
        yield from _computed(number, delegate)


def _dynamic(method: Method, inside: Mapping[int, VulkanDelegate]) -> Iterator[tuple[Key, ...]]:
    """Yield the axes of each dynamic tensor at a border."""
    for axes, value, _ in _crossing(method, inside):
        if value.dynamism is not ShapeDynamism.STATIC:
            yield axes


def _crossing(
    method: Method, inside: Mapping[int, VulkanDelegate]
) -> Iterator[tuple[tuple[Key, ...], Tensor, tuple[Key, ...]]]:
    """Yield a method's tensors at a border, with their axes outside and, where they are the same, inside."""
    for call in method.instructions:
        if not isinstance(call, DelegateCall) or call.delegate_index not in inside:
            continue
        number, graph = call.delegate_index, inside[call.delegate_index].graph
        for outside, within in zip(call.args, (*graph.input_ids, *graph.output_ids), strict=False):
            value, spec = method.values[outside], graph.values[within]
            if isinstance(value, Tensor) and isinstance(spec, VkTensor):
                axes = range(len(value.sizes) if value.sizes == spec.dims else 0)
                yield (
                    tuple((_OUTSIDE, outside, at) for at in range(len(value.sizes))),
                    value,
                    tuple((number, within, at) for at in axes),
                )


def _computed(number: int, delegate: VulkanDelegate) -> Iterator[Relation]:
    """What the records say of a graph's calls."""
    reader = Reader(delegate)
    for position, call in enumerate(delegate.graph.chain):
        if call.args:
            keys = _Keys(delegate=delegate, number=number, call=call, position=position)
            axes, ops = record_of(call.name).axes, reader.operands(call)
            yield from (keys.relation(each) for each in followed(axes, ops))


def _fixed(number: int, delegate: VulkanDelegate) -> Iterator[Relation]:
    """Constants, and sizes of one, do not vary."""
    for index, value in enumerate(delegate.graph.values):
        if isinstance(value, VkTensor):
            yield from (
                ((number, index, at), (), True)
                for at, size in enumerate(value.dims)
                if value.constant or size <= 1
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Keys:
    """The axes of one call's operands."""

    delegate: VulkanDelegate
    number: int
    call: OperatorCall
    position: int

    def relation(self, each: Follows) -> Relation:
        return self._key(each.axis), tuple(map(self._key, each.others)), each.surely

    def _key(self, axis: Axis) -> Key:
        if axis == VARIES:
            return _VARIES
        if not axis.operand:
            return self.number, ~self.position, axis.at
        at = -1 if axis.operand == OUTPUT else self._position(axis.operand)
        index = self.call.args[at]
        value = self.delegate.graph.values[index]
        if isinstance(value, ValueList) and axis.member < len(value.ids):
            index = value.ids[axis.member]
        return self.number, index, axis.at

    def _position(self, name: str) -> int:
        record = record_of(self.call.name)
        known = record.position(name)
        return int(name.removeprefix("arg")) if known is None else known


# --- what follows from them

_Told: TypeAlias = dict[Key, bool]  # axes that vary (True), and that do not (False)


@dataclass(slots=True, kw_only=True)
class _Open:
    """A relation, with how many of its `others` may still vary, and whether one is known to."""

    key: Key
    others: tuple[Key, ...]
    surely: bool
    left: int
    varies: bool = False

    def learnt(self, known: _Told) -> Iterator[tuple[Key, bool]]:
        """Yield what it says by now; of its others where they are told at once."""
        told = known.get(self.key)
        if told is None and not self.left:
            yield self.key, False
        elif told is None and self.surely and self.varies:
            yield self.key, True
        elif told and self.left == 1 and not self.varies:
            yield from ((each, True) for each in self.others if each not in known)
        elif told is False and self.surely and self.left:
            self.left = 0
            yield from ((each, False) for each in self.others)


def _solved(relations: Sequence[Relation], *assumed: Key) -> _Told:
    """Learn until nothing new follows. Of what contradicts itself, as in no honest file, the first stands."""
    of, among = defaultdict[Key, list[_Open]](list), defaultdict[Key, list[_Open]](list)
    for key, others, surely in relations:
        relation = _Open(key=key, others=others, surely=surely, left=len(others))
        of[key].append(relation)
        for each in others:
            among[each].append(relation)
    known: _Told = {}
    waiting = [(key, False) for key, others, _ in relations if not others]
    waiting += ((key, True) for key in (_VARIES, *assumed))
    while waiting:
        key, varies = waiting.pop()
        if key in known:
            continue
        known[key] = varies
        for relation in among[key]:
            relation.left -= not varies
            relation.varies |= varies
        for relation in (*among[key], *of[key]):
            waiting += relation.learnt(known)
    return known


_STATIC: Final = Varying()


class Asked:
    """What a runtime objects to in the calls of a delegate."""

    def __init__(self, pte: PteFile, delegate: VulkanDelegate, target: Runtime) -> None:
        varies = varying(pte).get(delegate.place, _STATIC)
        self._target = target
        self._surely, self._perhaps = (Reader(delegate, each) for each in (varies.surely, varies.perhaps))
        self._untold = varies.perhaps != varies.surely
        self._cases = [[Reader(delegate, each) for each in case] for case in varies.cases]

    def objections(self, call: OperatorCall) -> Iterator[tuple[Objection, bool]]:
        """Yield each with whether it holds for sure: else only if a size varies that the file leaves open."""
        found = judge(self._surely.operands(call), self._target)
        yield from ((objection, True) for objection in found)
        if not self._untold:
            return
        known = {objection.code for objection in found}
        for objection in judge(self._perhaps.operands(call), self._target):
            if objection.code not in known:
                yield objection, self._anyway(objection.code, call)

    def _anyway(self, code: Code, call: OperatorCall) -> bool:
        """Whether it holds whichever axis of a tensor at the border is the one that varies."""
        return any(all(self._holds(code, call, reader) for reader in case) for case in self._cases)

    def _holds(self, code: Code, call: OperatorCall, reader: Reader) -> bool:
        return any(objection.code is code for objection in judge(reader.operands(call), self._target))
