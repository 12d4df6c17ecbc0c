"""State that several methods of a file write: one buffer for all of them.

ExecuTorch plans such buffers at one place for all methods (exir/passes/memory_planning_pass.py, share_mutable_buffers).
Which memory stands there is up to the application: Module(..., share_memory_arenas=true) gives all methods the same.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch.export import ExportedProgram

from vkfuse.program import constants_of


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """A buffer that a method writes, as each method that has it: its kind (dtype and shape) by method, and who writes."""

    name: str
    kinds: Mapping[str, tuple[torch.dtype, tuple[int, ...]]]
    writers: tuple[str, ...]

    @property
    def alike(self) -> bool:
        """Whether all writers have the same kind of buffer."""
        return len({self.kinds[method] for method in self.writers}) == 1


def shared_state(methods: Mapping[str, ExportedProgram]) -> frozenset[str]:
    """Names of the buffers that several methods write; none can be shared where some of one name are not alike."""
    several = [state for state in _states(methods) if len(state.writers) > 1]
    return (
        frozenset(state.name for state in several) if all(state.alike for state in several) else frozenset()
    )


def state_notes(methods: Mapping[str, ExportedProgram]) -> Iterator[str]:
    """What a user has to know of buffers that several methods have and some write."""
    shared = shared_state(methods)
    for state in _states(methods):
        writers = " and ".join(state.writers)
        if state.name in shared:
            yield (
                f"state {state.name} of {writers} is one buffer where the application loads the file with "
                "Module(..., share_memory_arenas=true), else each method has its own"
            )
        elif len(state.writers) > 1:
            yield f"state {state.name} is each method's own: not all state of {writers} has the same shape and dtype"
        for method in sorted(state.kinds.keys() - {*state.writers}):
            yield f"{method} reads the stored value of {state.name}, not what {writers} writes to it"


def _states(methods: Mapping[str, ExportedProgram]) -> Iterator[State]:
    """Each buffer that a method writes, by name."""
    writes = {name: {*of.graph_signature.buffers_to_mutate.values()} for name, of in methods.items()}
    kinds = {name: dict(_kinds(exported)) for name, exported in methods.items()}
    for buffer in sorted(set().union(*writes.values())):
        yield State(
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
