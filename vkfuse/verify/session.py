"""A .pte, executed: instructions of a method, CPU kernels by torch, Vulkan delegates by their graphs."""

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch

from vkfuse.errors import FormatError, InputError, VkfuseError
from vkfuse.lint import faults, lint
from vkfuse.program.operators import register_operators
from vkfuse.pte.delegates import vulkan_delegates
from vkfuse.pte.model import (
    DelegateCall,
    FreeCall,
    Instruction,
    JumpFalseCall,
    KernelCall,
    Method,
    MoveCall,
    PteFile,
    Tensor,
    TensorList,
)
from vkfuse.pte.place import Place
from vkfuse.pte.reader import read_pte
from vkfuse.runtime.codes import Code
from vkfuse.verify import foreign
from vkfuse.verify.errors import CannotVerifyError, ExecutionError, NotLoadableError, first_line
from vkfuse.verify.kernels import PRIMS, CpuKernel, find_kernel
from vkfuse.verify.memory import Memory, fits, refused_copy, refused_order
from vkfuse.verify.steps import COPY, Argument, Observer, Step, ignore
from vkfuse.verify.tensors import Reading, as_they_lie, laid_out
from vkfuse.verify.vulkan.graph import GraphRun
from vkfuse.verify.vulkan.table import kernels as vulkan_kernels

_MOST_STEPS: Final = 200_000  # instructions of one call; a file may jump in circles
_COPY_INDEX: Final = "executorch_prim::et_copy_index.tensor"
Noted = Mapping[Code, tuple[Place, ...]]


class Session:
    """A method, loaded once and called often; mutable buffers keep their values until `reset`."""

    def __init__(
        self, pte: PteFile, method: str, loaded: Mapping[int | None, GraphRun] | None = None
    ) -> None:
        register_operators()
        self.method = _method(pte, method)
        self._memory = Memory(self.method)
        self._file = pte
        self._foreign: dict[int, foreign.ForeignRun] = {}
        self._constants = {
            index
            for index, value in enumerate(self.method.values)
            if not isinstance(value, Tensor) or value.data is not None
        }
        self._written = set(self._constants)
        self._noted: dict[Code, dict[Place, None]] = {}
        self._kernels: dict[int, CpuKernel] = {}
        self._delegates = {
            place.delegate: loaded[place.delegate].another(self._note)
            if loaded
            else GraphRun(delegate, vulkan_kernels(), note=self._note)
            for place, delegate in vulkan_delegates(pte).items()
            if place.method == method
        }

    @property
    def noted(self) -> Noted:
        """The runtime's behaviours that applied so far, and where."""
        return {behaviour: tuple(places) for behaviour, places in self._noted.items()}

    @property
    def input_places(self) -> tuple[Hashable, ...]:
        """Names of the inputs' places."""
        return self._places(self.method.inputs)

    def reset(self) -> None:
        """Set every value to what the file says."""
        self._memory.reset()
        for run in self._delegates.values():
            run.reset()

    def __call__(self, inputs: Sequence[Argument], observe: Observer = ignore) -> tuple[Argument, ...]:
        """Run on the flat inputs of the method; what comes back is the caller's. Raises what `borrowed` does."""
        return tuple(_own(value) for value in self.borrowed(inputs, observe))

    def borrowed(self, inputs: Sequence[Argument], observe: Observer = ignore) -> tuple[Argument, ...]:
        """Run on the flat inputs; what comes back lies where the next call may write.

        Raises InputError, FormatError, NotLoadableError, CannotVerifyError and ExecutionError.
        """
        self.enter(inputs)
        self._execute(observe)
        return self.outputs

    def another(self) -> "Session":
        """The method loaded again; what does not change is shared."""
        return Session(self._file, self.method.name, self._delegates)

    @property
    def delegates(self) -> Mapping[int | None, GraphRun]:
        """The Vulkan delegates by their numbers."""
        return self._delegates

    @property
    def outputs(self) -> tuple[Argument, ...]:
        """What the last call returned; it lies where the next one may write."""
        return tuple(self._memory.read(index) for index in self.method.outputs)

    def heard(self, noted: Noted) -> None:
        """Take over what another session has noted."""
        for behaviour, places in noted.items():
            self._noted.setdefault(behaviour, {}).update(dict.fromkeys(places))

    @property
    def stateful(self) -> bool:
        """Whether a call may read memory that none of its own instructions has written: what an earlier one left."""
        written = {*self.input_places}
        for instruction in self.method.instructions:
            reads, writes = self._operands(instruction)
            if any(
                self._memory.planned(index) for index in reads if self._memory.place(index) not in written
            ):
                return True
            written |= {self._memory.place(index) for index in writes}
        return False

    def _operands(self, instruction: Instruction) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the values that an instruction reads, and those that it writes; those of lists in their place."""
        match instruction:
            case DelegateCall():
                count = self._delegates[instruction.delegate_index].input_count
                return self._members(instruction.args[:count]), self._members(instruction.args[count:])
            case MoveCall():
                return (instruction.move_from,), (instruction.move_to,)
            case KernelCall():
                args = instruction.args
                name = self.method.operators[instruction.op_index].full_name
                if name in PRIMS:
                    return self._members(args[:-1]), args[-1:]
                if name == _COPY_INDEX:
                    return self._members(args), args[:1]
                kernel = find_kernel(name, Place(self.method.name))
                given = [at for at in range(min(kernel.arity, len(args))) if at not in kernel.outputs]
                writes = args[kernel.arity :] or tuple(args[at] for at in kernel.outputs)
                return self._members([args[at] for at in given]), self._members(writes)
        return (), ()

    @property
    def result_bytes(self) -> int:
        """What a call keeps in memory outside of delegates."""
        return sum(self.method.non_const_buffer_sizes)

    def enter(self, inputs: Sequence[Argument]) -> None:
        """Set the flat inputs of a call. InputError."""
        if len(inputs) != len(self.method.inputs):
            raise InputError(
                f"{len(inputs)} inputs for a method that takes {len(self.method.inputs)}",
                hint="give the flat inputs of the exported program",
            )
        self._written = set(self._constants)
        for number, (index, value) in enumerate(zip(self.method.inputs, inputs, strict=True)):
            self._set_input(number, index, value)

    def _set_input(self, number: int, index: int, value: Argument) -> None:
        """Store an input, its type and shape being what the file says."""
        self._written.add(index)
        spec = self._memory.spec(index)
        if not isinstance(spec, Tensor):
            if value != self._memory.read(index):
                kept = self._memory.read(index)
                reason = (
                    f"input {number} is {value}; the file says {kept}, and the runtime takes nothing else"
                )
                raise ExecutionError("input", Place(self.method.name), reason)
            return
        if not isinstance(value, torch.Tensor) or value.dtype is not self._memory.dtype(index):
            found = value.dtype if isinstance(value, torch.Tensor) else type(value).__name__
            raise InputError(
                f"input {number} is {found}, the file wants {spec.scalar_type.label}".replace("torch.", ""),
                hint="give inputs of this type, or the program that the file was made from",
            )
        if not fits(tuple(value.shape), spec.sizes):
            raise InputError(
                f"input {number} of shape {list(value.shape)} does not fit into {list(spec.sizes)}"
            )
        self._memory.write(index, value)

    def _execute(self, observe: Observer) -> None:
        instructions = self.method.instructions
        position = steps = 0
        while position < len(instructions):
            steps += 1
            if steps > _MOST_STEPS:
                raise ExecutionError("jump", Place(self.method.name), f"more than {_MOST_STEPS} instructions")
            try:
                position = self.step(instructions[position], position, observe)
            except VkfuseError:
                raise
            except Exception as error:  # torch raises anything
                where = Place(self.method.name, call=position)
                raise ExecutionError("instruction", where, first_line(error)) from error

    def step(self, instruction: Instruction, position: int, observe: Observer = ignore) -> int:
        """Execute one instruction and return the next."""
        match instruction:
            case KernelCall():
                self._call_kernel(instruction, position, observe)
            case DelegateCall():
                self._call_delegate(instruction, observe)
            case MoveCall():
                self._memory.write(instruction.move_to, self._memory.read(instruction.move_from))
            case JumpFalseCall():
                if not bool(self._memory.read(instruction.cond_value_index)):
                    return instruction.destination_instruction
            case FreeCall():
                self._memory.write(instruction.value_index, None)
        return position + 1

    def _call_kernel(self, call: KernelCall, position: int, observe: Observer) -> None:
        name = self.method.operators[call.op_index].full_name
        where = Place(self.method.name, call=position)
        values = [self._memory.read(index) for index in call.args]
        try:
            outputs, targets = self._computed(name, call, values, where)
            self._write(targets, outputs)
        except VkfuseError:
            raise
        except NotImplementedError as error:
            raise CannotVerifyError(name, where, "torch has no kernel of it") from error
        except Exception as error:  # torch's operators raise anything
            raise ExecutionError(name, where, first_line(error)) from error
        reads, writes = self._places(call.args), self._places(targets)
        observe(
            Step(name=name, where=where, inputs=tuple(values), outputs=outputs, reads=reads, writes=writes)
        )

    def _places(self, indices: Sequence[int]) -> tuple[Hashable, ...]:
        return tuple(place for index in indices for place in self._memory.places(index))

    def _computed(
        self, name: str, call: KernelCall, values: list[Any], where: Place
    ) -> tuple[tuple[Any, ...], tuple[int, ...]]:
        """Return the outputs of a kernel call, and the values that take them."""
        if name == _COPY_INDEX:
            return (torch.cat([values[0][: values[2]], values[1].unsqueeze(0)]),), call.args[:1]
        if name in PRIMS:
            return (PRIMS[name](*values[:-1]),), call.args[-1:]
        refused = refused_order(name, map(self._memory.dim_order, self._members(call.args)))
        if refused:
            raise ExecutionError(name, where, refused)
        kernel = self._kernels.get(call.op_index) or find_kernel(name, where)
        self._kernels[call.op_index] = kernel
        if len(values) < kernel.arity:
            raise FormatError(f"{len(values)} arguments for {name}", field=str(where))
        source, target = (self._memory.dim_order(call.args[at]) for at in (0, kernel.arity - 1))
        refused = refused_copy(name, values[kernel.arity - 2], source or tuple(range(len(target))), target)
        if refused:
            raise ExecutionError(name, where, refused)
        arguments = [
            self._fresh(call.args[at]) if at in kernel.outputs else value
            for at, value in enumerate(values[: kernel.arity])
        ]
        outputs = _flat(kernel.run(arguments) or tuple(arguments[at] for at in kernel.outputs))
        return outputs, self._members(
            call.args[kernel.arity :] or tuple(call.args[at] for at in kernel.outputs)
        )

    def _members(self, indices: Sequence[int]) -> tuple[int, ...]:
        """Return the indices with those of lists in the place of the lists."""
        members: list[int] = []
        for index in indices:
            spec = self._memory.spec(index)
            members.extend(spec.ids if isinstance(spec, TensorList) else (index,))
        return tuple(members)

    def _fresh(self, index: int) -> Any:
        """Return an empty output of the type that the file gives it; torch sizes it."""
        spec = self._memory.spec(index)
        if isinstance(spec, TensorList):
            return [self._fresh(member) for member in spec.ids]
        return torch.empty(0, dtype=self._memory.dtype(index))

    def _call_delegate(self, call: DelegateCall, observe: Observer) -> None:
        run = self._delegates.get(call.delegate_index)
        if run is None:
            self._call_foreign(call, observe)
            return
        values, kinds = self.handed(call, run, observe)
        self.taken(call, run, run(values, kinds, observe), observe)

    def handed(
        self, call: DelegateCall, run: GraphRun, observe: Observer = ignore
    ) -> tuple[tuple[Any, ...], tuple[torch.dtype | None, ...]]:
        """Return what a delegate is given, and the types of what it gives back."""
        inputs, targets = call.args[: run.input_count], call.args[run.input_count :]
        kinds = tuple(
            self._memory.dtype(index) if isinstance(self._memory.spec(index), Tensor) else None
            for index in targets
        )
        where = Place(self.method.name, call.delegate_index)
        values = tuple(self._copied(as_they_lie, index, self._memory.read(index), where) for index in inputs)
        observe(_copy(where, values, self._places(inputs), run.input_places))
        return values, kinds

    def taken(
        self, call: DelegateCall, run: GraphRun, found: Sequence[Any], observe: Observer = ignore
    ) -> None:
        """Store what a delegate gives back."""
        targets, where = call.args[run.input_count :], Place(self.method.name, call.delegate_index)
        pairs = zip(targets, found, strict=True)
        outputs = tuple(self._copied(laid_out, index, value, where) for index, value in pairs)
        self._write(targets, outputs)
        observe(_copy(where, outputs, run.output_places, self._places(targets)))

    def _copied(self, reading: Reading, index: int, value: Any, where: Place) -> Any:
        """Return a value as its bytes are understood on the other side of a delegate's border, where they are in order."""
        order = self._memory.dim_order(index)
        if (
            not isinstance(value, torch.Tensor)
            or order == tuple(range(value.dim()))
            or value.dim() != len(order)
        ):
            return value
        found = reading(value, order)
        if not torch.equal(found, value):
            self._note(Code.DIM_ORDER_IGNORED, where)
        return found

    def _call_foreign(self, call: DelegateCall, observe: Observer) -> None:
        """Run a delegate of another backend. CannotVerifyError where the installed runtime does not."""
        delegate = self.method.delegates[call.delegate_index]
        where = Place(self.method.name, call.delegate_index)
        inputs, targets = self._sides(call)
        specs = [self._memory.spec(index) for index in call.args]
        tensors = [spec for spec in specs if isinstance(spec, Tensor)]
        if not foreign.available(delegate.id) or len(tensors) != len(specs):
            raise CannotVerifyError(delegate.id, where, "a delegate of another backend")
        if call.delegate_index not in self._foreign:
            self._foreign[call.delegate_index] = foreign.foreign_run(
                self._file, delegate, tensors, len(inputs)
            )
        values = tuple(self._memory.read(index) for index in inputs)
        outputs = self._foreign[call.delegate_index](values)
        self._write(targets, outputs)
        reads, writes = self._places(inputs), self._places(targets)
        observe(
            Step(name=delegate.id, where=where, inputs=values, outputs=outputs, reads=reads, writes=writes)
        )

    def _sides(self, call: DelegateCall) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Split the arguments of a call, which stores no count: outputs are the last ones that nothing has written."""
        count = len(call.args)
        while count and call.args[count - 1] not in self._written:
            count -= 1
        return call.args[:count], call.args[count:]

    def _write(self, targets: Sequence[int], outputs: Sequence[Any]) -> None:
        for index, value in zip(targets, outputs, strict=False):
            self._memory.write(index, value)
            self._written.add(index)

    def _note(self, behaviour: Code, where: Place) -> None:
        self._noted.setdefault(behaviour, {})[where] = None


def _copy(
    where: Place, values: tuple[Argument, ...], reads: Sequence[Hashable], writes: Sequence[Hashable]
) -> Step:
    """Return the step that moves values between the program and a delegate."""
    return Step(
        name=COPY, where=where, inputs=values, outputs=values, reads=tuple(reads), writes=tuple(writes)
    )


def _flat(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the values with the members of lists in the place of the lists."""
    return tuple(
        member for value in values for member in (value if isinstance(value, list | tuple) else (value,))
    )


def _own(value: Any) -> Any:
    """Return a value that later calls do not overwrite."""
    return value.clone() if isinstance(value, torch.Tensor) else value


def run_file(source: Path | str | PteFile, method: str = "forward", *, runtime: str | None = None) -> Session:
    """Load a method of a .pte for execution.

    Raises InputError and FormatError for the file, NotLoadableError where `runtime` (the default one if
    None) would refuse it, CannotVerifyError for an operator that has no definition here.
    """
    pte = source if isinstance(source, PteFile) else read_pte(source)
    findings = lint(pte) if runtime is None else lint(pte, runtime)
    fatal = tuple(finding for finding in faults(findings) if finding.effect == "fails")
    if fatal:
        raise NotLoadableError(fatal)
    return Session(pte, method)


def _method(pte: PteFile, name: str) -> Method:
    for method in pte.methods:
        if method.name == name:
            return method
    names = ", ".join(method.name for method in pte.methods)
    raise InputError(f"no method {name!r} in {pte.path or 'the file'}", hint=f"there are: {names}")
