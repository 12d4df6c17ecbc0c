"""Graphs and methods laid out as lowering lays them out: the order of instructions and values, and planned memory.

Sources: backends/vulkan/serialization/vulkan_graph_builder.py and exir/emit/_emitter.py of ExecuTorch 1.5, `legalize_graph`
of torch/fx/passes/tools_common.py in torch 2.13.
"""

from collections import deque
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Final

from vkfuse.patch import graphs, pruned
from vkfuse.patch.places import Life, planned
from vkfuse.pte.model import Allocation, DelegateCall, Instruction, KernelCall, Method, Tensor
from vkfuse.pte.vulkan import OperatorCall, ValueList, VkTensor, VulkanGraph
from vkfuse.runtime.operators.moves import PREPACK

_MEMORY: Final = 1  # number of the planned buffer of a method; behind it is what several methods share
_VIEW: Final = "executorch_prim::et_view"
_SIZES: Final = {f"executorch_prim::{name}" for name in ("add", "sub", "mul", "floordiv", "truediv", "mod")}


def relaid_graph(graph: VulkanGraph, sizes: Mapping[int, int]) -> VulkanGraph:
    """Return a graph in order, without values that nothing reads; `sizes` are bytes of what crosses the border."""
    order = [*_graph_order(graph)]
    lives = _graph_lives(graph, order, sizes)
    memory = dict(zip(lives, planned([*lives.values()], beside=False)[0], strict=True))
    placed = replace(
        graph,
        chain=tuple(replace(call, node_id=at) for at, call in enumerate(graph.chain)),
        values=tuple(
            replace(value, mem_obj_id=memory[index][0])
            if isinstance(value, VkTensor) and index in memory
            else value
            for index, value in enumerate(graph.values)
        ),
    )
    return graphs.reordered(placed, order)


def _named(graph: VulkanGraph, call: OperatorCall) -> Iterator[int]:
    """Yield the arguments of a call, members of a list before it."""
    for index in call.args:
        value = graph.values[index]
        yield from value.ids if isinstance(value, ValueList) else ()
        yield index


def _graph_order(graph: VulkanGraph) -> dict[int, None]:
    """Return constants, each with its copies, inputs, and what the calls name, by the first that does."""
    named = [index for call in graph.chain for index in _named(graph, call)]
    read = {*named, *graph.output_ids}
    copies: dict[int, list[int]] = {}
    for call in graph.chain:
        if call.name == PREPACK:
            copies.setdefault(call.args[0], []).append(call.args[-1])
    constants = (
        (index, *copies.get(index, ()))
        for index, value in enumerate(graph.values)
        if index in read and isinstance(value, VkTensor) and value.constant
    )
    return dict.fromkeys([*chain.from_iterable(constants), *graph.input_ids, *named])


def _graph_lives(graph: VulkanGraph, order: Iterable[int], sizes: Mapping[int, int]) -> dict[int, Life]:
    """Return the lives of tensors that share memory; inputs live from the start, outputs to the end."""
    uses = _uses(graph.input_ids, (_named(graph, call) for call in graph.chain), graph.output_ids)
    known = {**sizes}
    for call in graph.chain:
        if call.args[0] in known and _moved(graph, call):
            known.setdefault(call.args[-1], known[call.args[0]])
    tensors = ((index, graph.values[index]) for index in order)
    return {
        index: Life(known.get(index, value.nbytes), uses[index][0], uses[index][-1])
        for index, value in tensors
        if isinstance(value, VkTensor) and not value.constant and value.mem_obj_id >= 0
    }


def _uses(
    front: Iterable[int], steps: Iterable[Iterable[int]], outputs: Iterable[int]
) -> dict[int, list[int]]:
    """Return the numbers of the steps that have to do with each value."""
    found: dict[int, list[int]] = {}
    for number, named in enumerate((front, *steps, outputs)):
        for index in named:
            found.setdefault(index, []).append(number)
    return found


def _moved(graph: VulkanGraph, call: OperatorCall) -> bool:
    """Whether a call's result has the numbers of its first argument, so that it is as wide in the program."""
    source, target = graph.values[call.args[0]], graph.values[call.args[-1]]
    if not isinstance(source, VkTensor) or not isinstance(target, VkTensor):
        return False
    return source.dtype is target.dtype and source.nbytes == target.nbytes


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    """An instruction, or None for a view of which the file has no instruction.

    `named` are values in the order in which they come up, `made` those that it writes. `soon`: it goes before what waits;
    `last`: it writes state, behind all else; `view`: it lets its last value lie where its first does.
    """

    entry: Instruction | None
    named: tuple[int, ...]
    made: tuple[int, ...]
    soon: bool = False
    last: bool = False
    view: bool = False

    @property
    def read(self) -> Iterator[int]:
        """The values that it reads."""
        return (index for index in self.named if index not in self.made)


def relaid_method(method: Method, inputs: Mapping[int, int], lowered: int) -> Method:
    """Return a method in order, planned, without values that nothing names; `inputs` counts those of each delegate.

    The first `lowered` values are numbered by when they came up.
    """
    views: dict[int, int] = {}
    states = _states(method)
    steps = [*_steps(method, inputs, states, lowered, views)]
    front = [*_front(method, states, views)]
    written = [index for step in steps if step.last for index in step.made]
    last = [step for step in steps if step.last]
    steps = [step for step in steps if not step.last]
    for _ in method.delegates:
        steps = _sorted(front, steps)
    steps += last
    order = dict.fromkeys([*front, *(index for step in steps for index in step.named), *method.outputs])
    uses = _uses((*states, *method.inputs), (step.named for step in steps), (*states, *method.outputs))
    entries = tuple(step.entry for step in steps if step.entry is not None)
    operators = dict.fromkeys(entry.op_index for entry in entries if isinstance(entry, KernelCall))
    return pruned.reordered(
        replace(_placed(method, order, uses, views, written), instructions=entries), order, operators
    )


def _lists(method: Method, ids: Iterable[int]) -> Iterator[int]:
    """Yield values, members of a list before it."""
    for index in ids:
        yield from pruned.members(method.values[index])
        yield index


def _states(method: Method) -> tuple[int, ...]:
    """Return what a method keeps from call to call: planned, and there before its inputs."""
    before = range(min(method.inputs, default=0))
    return tuple(index for index in before if isinstance(_at(method, index), Allocation))


def _at(method: Method, index: int) -> Allocation | None:
    """Return where a value is planned."""
    value = method.values[index]
    return value.allocation if isinstance(value, Tensor) else None


def _front(method: Method, states: Sequence[int], views: Mapping[int, int]) -> Iterator[int]:
    """Yield the constants, read or not, and the states among them, and the inputs."""
    for index, value in enumerate(method.values):
        constant = isinstance(value, Tensor) and value.constant
        if (constant or index in states) and index not in views and index not in method.inputs:
            yield index
    yield from method.inputs


def _steps(
    method: Method, inputs: Mapping[int, int], states: Sequence[int], lowered: int, views: dict[int, int]
) -> Iterator[_Step]:
    """Yield what is done, in the order of the instructions; `views` gets what lies where another value does, and that."""
    steps = [_step(method, entry, inputs, states) for entry in method.instructions]
    seen = [*states, *method.inputs]
    known = {*seen, *(index for step in steps for index in step.made)}
    unmade = [index for index in range(len(method.values)) if index not in known and _at(method, index)]
    for step in steps:
        before = min((index for index in step.made if _at(method, index)), default=0)
        for index in [*unmade]:
            base = _beneath(method, index, seen)
            if base is not None and (index in step.named or index < before < lowered):
                views[index] = base
                seen.append(index)
                unmade.remove(index)
                yield _Step(entry=None, named=(base, index), made=(index,))
        if step.view:
            views[step.named[-1]] = step.named[0]
        seen += step.made
        yield step


def _step(method: Method, entry: Instruction, inputs: Mapping[int, int], states: Sequence[int]) -> _Step:
    named = (*_lists(method, pruned.values_of(entry)),)
    if isinstance(entry, DelegateCall):
        return _Step(entry=entry, named=named, made=entry.args[inputs[entry.delegate_index] :])
    if not isinstance(entry, KernelCall):
        return _Step(entry=entry, named=named, made=())
    name, made = method.operators[entry.op_index].name, (*_lists(method, entry.args[-1:]),)
    view, last = name == _VIEW, not {*states}.isdisjoint(made)
    first = () if view or last else tuple(i for i in made if isinstance(method.values[i], Tensor))
    soon = name in _SIZES
    return _Step(entry=entry, named=(*first, *named), made=made, soon=soon, last=last, view=view)


def _beneath(method: Method, index: int, among: Sequence[int]) -> int | None:
    """Return the last value that lies just where a planned tensor does."""
    value = method.values[index]
    if not isinstance(value, Tensor) or value.allocation is None:
        return None
    others = ((at, method.values[at]) for at in reversed(among))
    return next(
        (
            at
            for at, other in others
            if isinstance(other, Tensor)
            and other.allocation == value.allocation
            and other.nbytes == value.nbytes
        ),
        None,
    )


def _sorted(front: Sequence[int], steps: Sequence[_Step]) -> list[_Step]:
    """Return steps by when all that they read is there, first come, first served; a delegate's results come one by one."""
    makers: dict[int, Hashable] = {index: ("value", index) for index in front}
    users: dict[Hashable, list[Hashable]] = {}
    waits: dict[Hashable, int] = {}
    for at, step in enumerate(steps):
        apart = isinstance(step.entry, DelegateCall)
        makers |= {index: ("value", index) if apart else at for index in step.made}
        users[at] = [("value", index) for index in step.made] if apart else []
        waits |= dict.fromkeys(users[at], 1)
    for at, step in enumerate(steps):
        of = dict.fromkeys(makers[index] for index in step.read if index in makers)
        waits[at] = len(of)
        for maker in of:
            users.setdefault(maker, []).append(at)
    queue: deque[Hashable] = deque(
        [*(("value", index) for index in front), *(at for at, n in waits.items() if not n)]
    )
    done = []
    while queue:
        maker = queue.popleft()
        done += [steps[maker]] if isinstance(maker, int) else []
        for user in users.get(maker, ()):
            waits[user] -= 1
            if not waits[user]:
                (queue.appendleft if isinstance(user, int) and steps[user].soon else queue.append)(user)
    return done


def _placed(
    method: Method,
    order: Iterable[int],
    uses: Mapping[int, list[int]],
    views: Mapping[int, int],
    written: Iterable[int],
) -> Method:
    """Return a method with its planned tensors where they need least memory; a view is where what it shows is.

    State that is `written` has memory a second time at the end: the program returns it (exir/passes/spec_prop_pass.py).
    """

    def base(index: int) -> int:
        while index in views:
            index = views[index]
        return index

    tensors = {
        index: value
        for index in order
        if isinstance(value := method.values[index], Tensor)
        and value.allocation is not None
        and value.allocation.memory_id == _MEMORY
    }
    spans: dict[int, list[int]] = {}
    for index in tensors:
        spans.setdefault(base(index), []).extend(uses.get(index, ()))
    lives = {index: Life(tensors[index].nbytes, min(span), max(span)) for index, span in spans.items()}
    ends = ((method.values[index], uses[index][-1]) for index in written)
    returned = [Life(value.nbytes, end, end) for value, end in ends if isinstance(value, Tensor)]
    places, total = planned([*lives.values(), *returned], beside=True)
    offsets = {index: offset for index, (_, offset) in zip(lives, places, strict=False)}
    values = list(method.values)
    for index, value in tensors.items():
        at = Allocation(memory_id=_MEMORY, offset=offsets[base(index)])
        values[index] = replace(value, allocation=at)
    sizes = (0, total, *method.non_const_buffer_sizes[_MEMORY + 1 :])
    return replace(method, values=tuple(values), non_const_buffer_sizes=sizes)
