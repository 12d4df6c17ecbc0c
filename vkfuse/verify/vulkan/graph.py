"""A delegate's graph, executed: constants once, then the chain for every call.

A constant that the runtime has copied to the GPU is a tensor like any other, with memory of its own that nothing else is
given (ComputeGraph::prepack): what an operator writes there, the next call finds.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from copy import copy
from typing import Any

import torch

from vkfuse.errors import VkfuseError
from vkfuse.lint.findings import Finding
from vkfuse.lint.operands import Reader
from vkfuse.pte.delegates import VulkanDelegate
from vkfuse.pte.enums import VkDataType, VkStorageType
from vkfuse.pte.place import Place
from vkfuse.pte.values import Bool, BoolList, Double, DoubleList, Int, String
from vkfuse.pte.vulkan import IntList, OperatorCall, SymInt, ValueList, VkTensor, VkValue, VulkanGraph
from vkfuse.runtime.codes import Code
from vkfuse.runtime.operators.attention import ATTENDED_OWN
from vkfuse.runtime.operators.moves import PREPACK
from vkfuse.verify.errors import CannotVerifyError, ExecutionError, NotLoadableError, first_line
from vkfuse.verify.memory import fits
from vkfuse.verify.steps import Argument, Observer, Step, ignore
from vkfuse.verify.tensors import tensor_of, undefined, vulkan_dtype
from vkfuse.verify.vulkan.call import Call, Kernel, Result
from vkfuse.verify.vulkan.undefined import resized_in_turn, wrong_as_a_whole

State = dict[int, Any]  # values by index


class GraphRun:
    """Executes one delegate. `note` is told of each behaviour that applied, `observe` of each operator."""

    def __init__(
        self,
        delegate: VulkanDelegate,
        kernels: Mapping[str, Kernel],
        *,
        note: Callable[[Code, Place], None],
    ) -> None:
        graph = delegate.graph
        self._graph, self._where, self._storage_of = graph, delegate.place, delegate.storage
        self._note = note
        reader = Reader(delegate)
        self._operands = tuple(reader.operands(call) for call in graph.chain)
        self._given = tuple(tuple(graph.values[index] for index in call.args) for call in graph.chain)
        self._storages = tuple(tuple(map(self._storage, call.args)) for call in graph.chain)
        self._wrong: dict[Hashable, Code | None] = {}  # by the number of a call, and shapes
        self._calls = tuple((call, self._kernel(call, kernels)) for call in graph.chain)
        self._dead = _last_uses(graph)
        self._fixed = {index: self._constant(index, value) for index, value in enumerate(graph.values)}
        self._kept, self._own = _written_constants(graph), frozenset(_own_caches(graph))
        self._state: dict[int, torch.Tensor] = {}

    def another(self, note: Callable[[Code, Place], None]) -> "GraphRun":
        """The same delegate, with what its own calls write."""
        run = copy(self)
        run._note, run._state = note, {}  # noqa: SLF001 - of the same class
        return run

    def reset(self) -> None:
        """Forget what calls have written: as the graph is when it has been loaded."""
        self._state = {}

    @property
    def input_places(self) -> tuple[Hashable, ...]:
        """Names of the inputs' places."""
        return tuple(self._places(self._graph.input_ids))

    @property
    def output_places(self) -> tuple[Hashable, ...]:
        """Names of the outputs' places."""
        return tuple(self._places(self._graph.output_ids))

    @property
    def input_count(self) -> int:
        """How many inputs the graph declares."""
        return len(self._graph.input_ids)

    def __call__(
        self, inputs: tuple[Argument, ...], outputs: tuple[torch.dtype | None, ...], observe: Observer
    ) -> tuple[Argument, ...]:
        """Run on the delegate's inputs; `outputs` are the types that the program wants, None for integers."""
        state = self.entered(inputs)
        for number in range(len(self._calls)):
            view = self.view_of(number, state)
            call, kernel = self._calls[number]
            found = self._found(call) or computed(view, kernel)
            self.settle(number, view, found, state, observe)
        return self.left(state, outputs)

    def entered(self, inputs: tuple[Argument, ...]) -> State:
        """Return the values by index when the inputs have been copied in."""
        pairs = zip(self._graph.input_ids, inputs, strict=True)
        for index, value in self._fixed.items():
            if index in self._own and isinstance(value, torch.Tensor):
                self._state.setdefault(index, torch.zeros_like(value))
        own = {index: self._state[index] for index in self._own}
        return self._fixed | own | {index: self._staged(index, value) for index, value in pairs}

    def left(self, state: Mapping[int, Any], outputs: tuple[torch.dtype | None, ...]) -> tuple[Argument, ...]:
        """Return what is copied back."""
        pairs = zip(self._graph.output_ids, outputs, strict=True)
        return tuple(self._unstaged(index, state.get(index), dtype) for index, dtype in pairs)

    @property
    def in_order(self) -> bool:
        """Whether each constant that is written is so once, and not read before: one call may closely follow another."""
        reads, writes = dict[int, int](), dict[int, list[int]]()
        for number, call in enumerate(self._graph.chain):
            for index in call.args[:-1]:
                value = self._graph.values[index]
                for member in (index, *(value.ids if isinstance(value, ValueList) else ())):
                    reads.setdefault(member, number)
            if call.name != PREPACK:
                writes.setdefault(call.args[-1], []).append(number)
        return all(
            len(writes[of]) == 1 and reads.get(of, writes[of][0]) >= writes[of][0] for of in self._kept
        )

    @property
    def kept(self) -> frozenset[int]:
        """Constants that calls write to."""
        return self._kept

    def left_in(self, index: int) -> torch.Tensor:
        """What calls since a reset have written to a constant."""
        return self._state[index]

    @property
    def calls(self) -> tuple[tuple[OperatorCall, Kernel], ...]:
        """The chain, each operator with what computes it."""
        return self._calls

    def _kernel(self, call: OperatorCall, kernels: Mapping[str, Kernel]) -> Kernel:
        if call.name not in kernels:
            raise CannotVerifyError(call.name, self._where)
        return kernels[call.name]

    def _constant(self, index: int, value: VkValue) -> Argument:
        match value:
            case VkTensor(constant=True):
                return self._constant_tensor(index, value)
            case Int() | Bool() | Double() | String() | SymInt():
                return value.value
            case IntList() | DoubleList() | BoolList():
                return list(value.items)
            case _:
                return None

    def _constant_tensor(self, index: int, value: VkTensor) -> Argument:
        if value.data is None:
            hint = f"no data for the constant of value {index}; {Code.MISSING_CONSTANT.remedy}"
            finding = Finding(
                kind="format", name=str(self._where), where=self._where, code=Code.MISSING_CONSTANT, hint=hint
            )
            raise NotLoadableError((finding,))
        return tensor_of(value.data, vulkan_dtype(value.dtype, f"{self._where}.values[{index}]"), value.dims)

    def _staged(self, index: int, value: Argument) -> Argument:
        """Copy an input into the delegate, narrowing what has no 64-bit type there."""
        spec = self._graph.values[index]
        if isinstance(spec, SymInt):
            return int(value.item()) if isinstance(value, torch.Tensor) else value
        if not isinstance(spec, VkTensor) or not isinstance(value, torch.Tensor):
            raise ExecutionError("input", self._where, f"value {index} is no tensor")
        if not fits(tuple(value.shape), spec.dims):
            raise ExecutionError(
                "input", self._where, f"{list(value.shape)} does not fit into {list(spec.dims)}"
            )
        return value.to(self._staging(spec)).to(vulkan_dtype(spec.dtype, self._where))

    def _staging(self, spec: VkTensor) -> torch.dtype:
        """Return the type that a tensor has outside, which half precision leaves float32."""
        staging = spec.dtype if spec.staging_dtype is VkDataType.UNSET else spec.staging_dtype
        return vulkan_dtype(staging, self._where)

    def _unstaged(self, index: int, value: Argument, dtype: torch.dtype | None) -> Argument:
        """Copy an output back, as the type that the program's tensor has."""
        spec = self._graph.values[index]
        if isinstance(value, torch.Tensor) and isinstance(spec, VkTensor):
            if not fits(tuple(value.shape), spec.dims):
                reason = f"an output of shape {list(value.shape)} does not fit into {list(spec.dims)}"
                raise ExecutionError("output", self._where, reason)
            value = value.to(self._staging(spec))
        return value.to(dtype) if isinstance(value, torch.Tensor) and dtype is not None else value

    def view_of(self, number: int, state: Mapping[int, Any]) -> Call:
        """Return an operator's call as its kernel sees it."""
        call, _ = self._calls[number]
        where = self._where.at(number)
        return Call(
            name=call.name,
            where=where,
            args=tuple(self._argument(index, state) for index in call.args[:-1]),
            operands=self._given[number],
            values=self._graph.values,
            storages=self._storages[number],
            note=lambda behaviour: self._note(behaviour, where),
        )

    def _judged(
        self, number: int, view: Call, outputs: tuple[Argument, ...], state: State
    ) -> tuple[Argument, ...]:
        """Return results, or what the runtime leaves in their place."""
        call, _ = self._calls[number]
        now = (*view.args, *outputs[:1])
        shapes = (number, *(each.shape if isinstance(each, torch.Tensor) else None for each in now))
        if shapes not in self._wrong:
            self._wrong[shapes] = wrong_as_a_whole(
                self._operands[number], call, state, next(iter(outputs), None)
            )
        wrong = self._wrong[shapes]
        if not wrong:
            return outputs
        self._note(wrong, view.where)
        return tuple(_undefined(wrong, view, *pair) for pair in zip(view.outputs, outputs, strict=False))

    def settle(
        self,
        number: int,
        view: Call,
        found: tuple[Argument, ...],
        state: State,
        observe: Observer = ignore,
    ) -> None:
        """Store results as the file and the runtime have them, and forget what nobody reads any more."""
        call, _ = self._calls[number]
        outputs = self._judged(number, view, found, state)
        self._store(call.args[-1], outputs, view, state)
        if observe is not ignore:
            observe(
                Step(
                    name=call.name,
                    where=view.where,
                    inputs=view.args,
                    outputs=outputs,
                    reads=tuple(self._places(call.args[:-1])),
                    writes=tuple(self._places(call.args[-1:])),
                    storages=view.storages,
                )
            )
        for index in self._dead.get(number, ()):
            state.pop(index, None)

    def _found(self, call: OperatorCall) -> tuple[Argument, ...]:
        """What earlier calls left in a constant that the runtime copies once; nothing at first, or for another operator."""
        kept = self._state.get(call.args[-1]) if call.name == PREPACK else None
        return () if kept is None else (kept,)

    def _storage(self, index: int) -> VkStorageType | None:
        value = self._graph.values[index]
        return self._storage_of(value) if isinstance(value, VkTensor) else None

    def _places(self, indices: Iterable[int]) -> Iterator[Hashable]:
        """Yield names of values, the members of lists."""
        for index in indices:
            value = self._graph.values[index]
            for member in value.ids if isinstance(value, ValueList) else (index,):
                yield self._where, member

    def _argument(self, index: int, state: Mapping[int, Any]) -> Argument:
        value = self._graph.values[index]
        if isinstance(value, ValueList):
            return [state.get(member) for member in value.ids]
        return state.get(index)

    def _store(self, index: int, outputs: tuple[Argument, ...], view: Call, state: State) -> None:
        spec = self._graph.values[index]
        targets = spec.ids if isinstance(spec, ValueList) else (index,)
        state.update(zip(targets, outputs, strict=False))
        written = outputs[0] if index in self._kept else None
        if isinstance(written, torch.Tensor):
            self._state[index] = state[index] = written.clone() if _shares(written, view.args) else written


def _shares(result: torch.Tensor, args: tuple[Any, ...]) -> bool:
    """Whether a result lies in memory of an argument."""
    place = result.untyped_storage().data_ptr()
    return any(isinstance(of, torch.Tensor) and of.untyped_storage().data_ptr() == place for of in args)


def computed(call: Call, kernel: Kernel) -> tuple[Argument, ...]:
    """Run a kernel, and cast what it returns as the file says; torch's own complaints become ExecutionError."""
    try:
        result: Result = kernel(call)
    except VkfuseError:
        raise
    except Exception as error:  # torch's operators raise anything
        raise call.fails(first_line(error)) from error
    return as_file_says(call, result if isinstance(result, tuple) else (result,))


def as_file_says(call: Call, results: tuple[Argument, ...]) -> tuple[Argument, ...]:
    """Cast results to the element types of the file's tensors and see that they fit there."""
    cast: list[Argument] = []
    for spec, value in zip(call.outputs, results, strict=False):
        if isinstance(spec, VkTensor) and isinstance(value, torch.Tensor):
            cast.append(_fitted(call, value, spec))
        else:
            cast.append(value)
    return tuple(cast)


def _undefined(why: Code, call: Call, spec: VkValue, value: Argument) -> Argument:
    """What the runtime leaves of a result: of one that is not resized also the shape is not the program's."""
    if not isinstance(value, torch.Tensor) or not isinstance(spec, VkTensor):
        return value
    if why is Code.CONDITION_RANK:
        return undefined(resized_in_turn(call), value.dtype)
    return undefined(spec.dims if why is Code.NO_RESIZE else value.shape, value.dtype)


def _fitted(call: Call, value: torch.Tensor, spec: VkTensor) -> torch.Tensor:
    if not fits(tuple(value.shape), spec.dims):
        raise call.fails(f"a result of shape {list(value.shape)} does not fit into {list(spec.dims)}")
    return value.to(vulkan_dtype(spec.dtype, call.where))


def _written_constants(graph: VulkanGraph) -> frozenset[int]:
    """Copies of constants on the GPU that an operator writes to."""
    copies = {call.args[-1] for call in graph.chain if call.name == PREPACK}
    return frozenset(copies & {call.args[-1] for call in graph.chain if call.name != PREPACK})


def _own_caches(graph: VulkanGraph) -> Iterator[int]:
    """Constants in whose place an operator makes caches like them, as zeros: impl/SDPA.cpp, sdpa_with_kv_cache_impl."""
    for call in graph.chain:
        if call.name == ATTENDED_OWN:
            yield from call.args[3:5]


def _last_uses(graph: VulkanGraph) -> Mapping[int, tuple[int, ...]]:
    """Which activations nothing reads after each call."""
    last: dict[int, int] = {}
    for number, call in enumerate(graph.chain):
        for index in call.args:
            value = graph.values[index]
            members = (index, *value.ids) if isinstance(value, ValueList) else (index,)
            last.update(dict.fromkeys(members, number))
    dead: dict[int, list[int]] = {}
    for index, number in last.items():
        value = graph.values[index]
        if isinstance(value, VkTensor) and not value.constant and index not in graph.output_ids:
            dead.setdefault(number, []).append(index)
    return {number: tuple(indices) for number, indices in dead.items()}
