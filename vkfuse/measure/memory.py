"""What a file takes once it is loaded: planned memory, and what its Vulkan delegates allocate on the device.

Counted as the runtime asks for it; a driver's alignment, uniforms and staging buffers come on top.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from vkfuse.lint.operands import Reader
from vkfuse.pte.delegates import VulkanDelegate, vulkan_delegates
from vkfuse.pte.model import PteFile
from vkfuse.pte.vulkan import OperatorCall, VkTensor
from vkfuse.runtime.operands import Operands, Tensor
from vkfuse.runtime.operators import record_of
from vkfuse.runtime.operators.moves import PREPACK
from vkfuse.runtime.packing import Filled, on_device, packed_axis
from vkfuse.runtime.record import Version
from vkfuse.runtime.spelling import storage
from vkfuse.runtime.versions import DEFAULT, find_runtime


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodMemory:
    """Bytes that a loaded method takes: `planned` on the CPU; `constants` and `tensors` of its delegates on the device."""

    method: str
    planned: int
    constants: int
    tensors: int


# What each part is called, and where it is.
MEMORY: Final[tuple[tuple[str, str, Callable[[MethodMemory], int]], ...]] = (
    ("planned memory", "cpu", lambda memory: memory.planned),
    ("constants on the device", "device", lambda memory: memory.constants),
    ("tensors on the device", "device", lambda memory: memory.tensors),
)


def memory(pte: PteFile, runtime: str = DEFAULT) -> tuple[MethodMemory, ...]:
    """Return what each method takes on a runtime. InputError, FormatError."""
    version = find_runtime(runtime).key
    return tuple(
        MethodMemory(
            method=method.name,
            planned=sum(method.non_const_buffer_sizes),
            constants=sum(_constants(delegate, version) for delegate in delegates),
            tensors=sum(map(_tensors, delegates)),
        )
        for method in pte.methods
        for delegates in [[d for d in vulkan_delegates(pte).values() if d.place.method == method.name]]
    )


def _constants(delegate: VulkanDelegate, version: Version) -> int:
    """Return the bytes of the tensors that a delegate's constants fill."""
    reader, kept = Reader(delegate), dict[tuple[int, str], int]()
    alone = 0
    for call in delegate.graph.chain:
        for filled in _filled(reader.operands(call), call, version):
            if isinstance(filled, Filled) and filled.shared:
                kept[id(filled.constant), filled.shader] = filled.nbytes
            else:
                alone += filled.nbytes
    return alone + sum(kept.values())


def _filled(ops: Operands, call: OperatorCall, version: Version) -> Iterator[Filled | Tensor]:
    """Yield what the constants of a call fill; where that is not modelled the constants as they are stored."""
    record = record_of(call.name, version)
    names = record.shaders(ops) if record.shaders else ()
    filled = [name for name in names if isinstance(name, Filled)]
    yield from filled or (tensor for tensor in ops.tensors() if tensor.constant)


def _tensors(delegate: VulkanDelegate) -> int:
    """Return the bytes of a delegate's other tensors; of those that share memory the largest."""
    shared: dict[int, int] = {}
    alone, copies = 0, {call.args[-1] for call in delegate.graph.chain if call.name == PREPACK and call.args}
    reader = Reader(delegate)
    for index, value in enumerate(delegate.graph.values):
        if not isinstance(value, VkTensor) or value.constant or index in copies:
            continue
        (tensor,) = reader.tensors((index,))
        size = on_device(value.dims, value.dtype.bytes, storage(tensor), packed_axis(tensor))
        if value.mem_obj_id < 0:
            alone += size
        else:
            shared[value.mem_obj_id] = max(shared.get(value.mem_obj_id, 0), size)
    return alone + sum(shared.values())
