"""Delegates of other backends, run by the installed ExecuTorch: each as a program of one instruction.

The installed runtime reads the delegate's bytes by its own code; give it files that you trust no more than that.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from executorch.exir import schema
from executorch.exir._serialize._cord import Cord
from executorch.exir._serialize._named_data_store import NamedDataStore
from executorch.exir._serialize._program import PTEFile, serialize_pte_binary
from executorch.exir.scalar_type import ScalarType
from executorch.extension.pybindings import portable_lib

from vkfuse.multiples import round_up
from vkfuse.pte.model import Delegate, Tensor

_RUN_HERE: Final = frozenset({"XnnpackBackend"})  # those that need nothing but this machine's processor
_ALIGNMENT: Final = 16


def available(backend: str) -> bool:
    """Whether the installed runtime has a backend that runs here."""
    return backend in _RUN_HERE and backend in portable_lib._get_registered_backend_names()  # noqa: SLF001


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignRun:
    """A delegate, loaded; called with the inputs that the file's call gives it."""

    program: Any
    data: bytes  # which the program refers to

    def __call__(self, inputs: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Run it and return its outputs. RuntimeError where the runtime refuses."""
        outputs = self.program.run_method("forward", tuple(value.contiguous() for value in inputs))
        return tuple(outputs)


def foreign_run(
    delegate: Delegate, inputs: Sequence[Tensor], outputs: Sequence[Tensor], named: Mapping[str, memoryview]
) -> ForeignRun:
    """Load a delegate with the shapes and types of its inputs and outputs. RuntimeError where that fails."""
    blob = bytes(delegate.processed)
    store = NamedDataStore()
    for key, stored in named.items():
        if key.encode() in blob:
            store.add_named_data(key, bytes(stored), alignment=_ALIGNMENT)
    program = schema.Program(
        version=0,
        execution_plan=[_plan(delegate, inputs, outputs)],
        constant_buffer=[schema.Buffer(storage=b"")],
        backend_delegate_data=[schema.BackendDelegateInlineData(data=blob)],
        segments=[],
        constant_segment=schema.SubsegmentOffsets(segment_index=0, offsets=[]),
    )
    file = PTEFile(program=program, named_data=store.get_named_data_store_output())
    data = bytes(Cord(serialize_pte_binary(file, extract_delegate_segments=True)))
    loaded = portable_lib._load_for_executorch_from_buffer(data)  # noqa: SLF001 - the installed runtime's own door
    return ForeignRun(program=loaded, data=data)


def _plan(delegate: Delegate, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> schema.ExecutionPlan:
    """Return a method whose only instruction calls the delegate."""
    values, end = [], 0
    for spec in (*inputs, *outputs):
        values.append(schema.EValue(val=_value(spec, end)))
        end += round_up(spec.nbytes, _ALIGNMENT)
    places = list(range(len(values)))
    call = schema.Instruction(instr_args=schema.DelegateCall(delegate_index=0, args=places))
    return schema.ExecutionPlan(
        name="forward",
        container_meta_type=schema.ContainerMetadata(encoded_inp_str="", encoded_out_str=""),
        values=values,
        inputs=places[: len(inputs)],
        outputs=places[len(inputs) :],
        chains=[schema.Chain(inputs=[], outputs=[], instructions=[call], stacktrace=None)],
        operators=[],
        delegates=[
            schema.BackendDelegate(
                id=delegate.id,
                processed=schema.BackendDelegateDataReference(location=schema.DataLocation.INLINE, index=0),
                compile_specs=[
                    schema.CompileSpec(key=spec.key, value=spec.value) for spec in delegate.compile_specs
                ],
            )
        ],
        non_const_buffer_sizes=[0, end],
    )


def _value(spec: Tensor, offset: int) -> schema.Tensor:
    """Return a planned tensor like one of the file's."""
    return schema.Tensor(
        scalar_type=ScalarType(int(spec.scalar_type)),
        storage_offset=0,
        sizes=list(spec.sizes),
        dim_order=list(spec.dim_order),
        requires_grad=False,
        layout=0,
        data_buffer_idx=0,
        allocation_info=schema.AllocationDetails(
            memory_id=1, memory_offset_low=offset & 0xFFFFFFFF, memory_offset_high=offset >> 32
        ),
        shape_dynamism=schema.TensorShapeDynamism(int(spec.dynamism)),
    )
