"""Delegates of other backends, run by the installed ExecuTorch: each as a program of one instruction.

The installed runtime reads the delegate's bytes by its own code; give it files that you trust no more than that.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Any, Final

import torch
from executorch.extension.pybindings import portable_lib

from vkfuse.multiples import round_up
from vkfuse.pte.model import Allocation, Delegate, DelegateCall, Method, NamedData, PteFile, Tensor
from vkfuse.pte.values import NOWHERE
from vkfuse.pte.writer import write_pte

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


def foreign_run(file: PteFile, delegate: Delegate, sides: Sequence[Tensor], inputs: int) -> ForeignRun:
    """Load a delegate of a file by itself; `sides` are its inputs, so many, and its outputs.

    RuntimeError where the runtime refuses.
    """
    values, end = list[Tensor](), 0
    for spec in sides:
        place = Allocation(memory_id=1, offset=end)
        values.append(
            Tensor(
                scalar_type=spec.scalar_type,
                sizes=spec.sizes,
                dim_order=spec.dim_order,
                dynamism=spec.dynamism,
                data_buffer_idx=0,
                allocation=place,
            )
        )
        end += round_up(spec.nbytes, _ALIGNMENT)
    places = tuple(range(len(values)))
    method = Method(
        name="forward",
        values=tuple(values),
        inputs=places[:inputs],
        outputs=places[inputs:],
        instructions=(DelegateCall(delegate_index=0, args=places),),
        operators=(),
        delegates=(delegate,),
        non_const_buffer_sizes=(0, end),
        encoded_inputs="",
        encoded_outputs="",
    )
    blob = bytes(delegate.processed)
    named = tuple(
        NamedData(key=key, segment_index=0, data=data, data_at=NOWHERE)
        for key, data in file.named_data.items()
        if key.encode() in blob
    )
    stream = BytesIO()
    write_pte(replace(file, methods=(method,), named=named, unread=""), stream)
    data = stream.getvalue()
    loaded = portable_lib._load_for_executorch_from_buffer(data)  # noqa: SLF001 - the installed runtime's own door
    return ForeignRun(program=loaded, data=data)
