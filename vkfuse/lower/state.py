"""State that several methods of a file write: one buffer for all of them.

ExecuTorch plans such buffers at one place for all methods (exir/passes/memory_planning_pass.py, share_mutable_buffers).
Which memory stands there is up to the application: Module(..., share_memory_arenas=true) gives all methods the same.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch.export import ExportedProgram

from vkfuse.errors import LoweringError
from vkfuse.program.parts import constants_of
from vkfuse.quantities import some

_NUMBERED = re.compile(r"(^|\.)lifted_tensor_\d+$")  # torch/_export/passes/lift_constants_pass.py


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenBuffer:
    """A buffer that a method writes, as each method that has it: its kind (dtype and shape) by method, and who writes."""

    name: str
    kinds: Mapping[str, tuple[torch.dtype, tuple[int, ...]]]
    writers: tuple[str, ...]

    @property
    def alike(self) -> bool:
        """Whether all methods that have it write it, and have it in one kind."""
        return self.kinds.keys() == {*self.writers} and len({*self.kinds.values()}) == 1


def buffers_of_several(methods: Mapping[str, ExportedProgram]) -> frozenset[str]:
    """Names of the buffers that a method writes and another one has too.

    LoweringError where it is torch that gave such a name: nothing says whether the methods mean one tensor.
    """
    several = frozenset(state.name for state in _states(methods) if len(state.kinds) > 1)
    numbered = next(filter(_NUMBERED.search, sorted(several)), None)
    if numbered is not None:
        raise LoweringError(
            f"{' and '.join(methods)} have a {numbered} each, which a method writes and no module registers: "
            "whether it is one tensor, nothing says",
            hint="register_buffer(name, tensor) in the module that is exported, under one name where they share it",
        )
    return several


def shared_state(methods: Mapping[str, ExportedProgram]) -> frozenset[str]:
    """Names of the buffers that several methods write, empty where some state is not alike in all: it would overlap."""
    states = tuple(_states(methods))
    several = frozenset(state.name for state in states if len(state.writers) > 1)
    return several if all(state.alike for state in states) else frozenset()


def initialized(methods: Mapping[str, ExportedProgram]) -> tuple[str, ...]:
    """Names of the placeholders of written buffers that do not start as zeros: their values have to be in the file."""
    found: dict[str, None] = {}
    for exported in methods.values():
        written = {*exported.graph_signature.buffers_to_mutate.values()}
        tensors = constants_of(exported)
        for placeholder, name in exported.graph_signature.inputs_to_buffers.items():
            if name in written and placeholder in tensors and bool(tensors[placeholder].any()):
                found[placeholder] = None
    return tuple(found)


def state_notes(
    programs: Mapping[str, ExportedProgram], lowered: Mapping[str, ExportedProgram]
) -> Iterator[str]:
    """What a user has to know of buffers that several programs have and some write, as they were and as lowered."""
    shared = shared_state(lowered)
    said: dict[str, list[str]] = {}
    for state in _states(programs):
        for text in _about(state, shared=state.name in shared):
            said.setdefault(text, []).append(state.name)
    for text, names in said.items():
        yield f"{text}: {some(names)}"


def _about(state: WrittenBuffer, *, shared: bool) -> Iterator[str]:
    writers = " and ".join(state.writers)
    if shared:
        yield (
            f"{writers} share state where the application loads the file with "
            "Module(..., share_memory_arenas=true), else each has its own"
        )
    elif len(state.writers) > 1:
        yield f"{writers} have state of their own each, since some differs in shape or dtype or is only read"
    for method in sorted(state.kinds.keys() - {*state.writers}):
        yield f"{method} reads values as stored, not what {writers} writes"


def _states(methods: Mapping[str, ExportedProgram]) -> Iterator[WrittenBuffer]:
    """Each buffer that a method writes, by name."""
    writes = {name: {*of.graph_signature.buffers_to_mutate.values()} for name, of in methods.items()}
    kinds = {name: dict(_kinds(exported)) for name, exported in methods.items()}
    for buffer in sorted(set().union(*writes.values())):
        yield WrittenBuffer(
            name=buffer,
            kinds={name: of[buffer] for name, of in kinds.items() if buffer in of},
            writers=tuple(name for name, written in writes.items() if buffer in written),
        )


def _kinds(exported: ExportedProgram) -> Iterator[tuple[str, tuple[torch.dtype, tuple[int, ...]]]]:
    """Name, dtype and shape of each buffer."""
    tensors = constants_of(exported)
    for placeholder, name in exported.graph_signature.inputs_to_buffers.items():
        if placeholder in tensors:
            yield name, (tensors[placeholder].dtype, tuple(tensors[placeholder].shape))
