"""Methods as the tables of the program flatbuffer: what `pte/program.py` and `pte/tensor.py` read, the other way round.

Source: schema/program.fbs and exir/emit/_emitter.py of ExecuTorch 1.5.
"""

from collections.abc import Callable

from vkfuse.pte.enums import DataLocation, TensorDataLocation
from vkfuse.pte.model import Allocation, BoxedIntList, Delegate, Frame, Method, Tensor, Value
from vkfuse.pte.records import Node

Numbered = Callable[[Tensor], int]  # where a tensor's bytes are in the written file
Placed = Callable[[Delegate], tuple[DataLocation, int]]  # where a delegate's are


def method_node(method: Method, numbered: Numbered, placed: Placed) -> Node:
    """Return the execution plan of a method."""
    meta = Node(
        "ContainerMetadata",
        {"encoded_inp_str": method.encoded_inputs, "encoded_out_str": method.encoded_outputs},
    )
    devices = method.buffer_devices
    return Node(
        "ExecutionPlan",
        {
            "name": method.name,
            "container_meta_type": meta,
            "values": [Node("EValue", {"val": _value(value, numbered)}) for value in method.values],
            "inputs": method.inputs,
            "outputs": method.outputs,
            "chains": [_chain(method)],
            "operators": [*map(Node.of, method.operators)],
            "delegates": [_delegate(delegate, placed) for delegate in method.delegates],
            "non_const_buffer_sizes": method.non_const_buffer_sizes,
            "non_const_buffer_device": devices and [*map(Node.of, devices)],
        },
    )


def _value(value: Value, numbered: Numbered) -> Node:
    """Return the union member of a value."""
    if isinstance(value, Tensor):
        return _tensor(value, numbered(value))
    return Node.of(value, "IntList" if isinstance(value, BoxedIntList) else "")


def _tensor(tensor: Tensor, index: int) -> Node:
    """Return a tensor whose bytes are number `index`."""
    return Node(
        "Tensor",
        {
            "scalar_type": tensor.scalar_type,
            "sizes": tensor.sizes,
            "dim_order": tensor.dim_order,
            "requires_grad": tensor.requires_grad,
            "data_buffer_idx": index,
            "allocation_info": _allocation(tensor.allocation),
            "layout": tensor.layout,
            "shape_dynamism": tensor.dynamism,
            "extra_tensor_info": _extra(tensor),
        },
    )


def _allocation(allocation: Allocation | None) -> Node | None:
    """Return a planned place."""
    if allocation is None:
        return None
    low, high = allocation.offset & 0xFFFFFFFF, allocation.offset >> 32
    return Node(
        "AllocationDetails",
        {"memory_id": allocation.memory_id, "memory_offset_low": low, "memory_offset_high": high},
    )


def _extra(tensor: Tensor) -> Node | None:
    """Return what few tensors have, None where all of it is what an absent table means."""
    location = TensorDataLocation.EXTERNAL if tensor.external else TensorDataLocation.SEGMENT
    numbers = (tensor.initial_segment, location, tensor.device, tensor.device_index)
    if not tensor.name and not any(numbers):
        return None
    return Node(
        "ExtraTensorInfo",
        {
            "mutable_data_segments_idx": tensor.initial_segment,
            "fully_qualified_name": tensor.name or None,
            "location": location,
            "device_type": tensor.device,
            "device_index": tensor.device_index,
        },
    )


def _chain(method: Method) -> Node:
    """Return the one chain of a method."""
    return Node(
        "Chain",
        {
            "inputs": method.chain_inputs,
            "outputs": method.chain_outputs,
            "instructions": [
                Node("Instruction", {"instr_args": Node.of(entry)}) for entry in method.instructions
            ],
            "stacktrace": _frames(method.frames),
        },
    )


def _frames(frames: tuple[tuple[Frame, ...], ...] | None) -> list[Node] | None:
    """Return where each instruction comes from."""
    if frames is None:
        return None
    return [Node("FrameList", {"items": [*map(Node.of, entry)]}) for entry in frames]


def _delegate(delegate: Delegate, placed: Placed) -> Node:
    """Return a delegate and where its blob is."""
    location, index = placed(delegate)
    return Node(
        "BackendDelegate",
        {
            "id": delegate.id,
            "processed": Node("BackendDelegateDataReference", {"location": location, "index": index}),
            "compile_specs": [*map(Node.of, delegate.compile_specs)],
        },
    )
