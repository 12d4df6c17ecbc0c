"""Tensors of a program.

Source: runtime/executor/tensor_parser_portable.cpp of ExecuTorch 1.5.
"""

from dataclasses import replace
from typing import Final

from vkfuse.pte.enums import DeviceType, ScalarType, ShapeDynamism, TensorDataLocation
from vkfuse.pte.flatbuffer import FlatTable
from vkfuse.pte.model import Allocation, Tensor
from vkfuse.pte.segments import Blobs, Bytes, cut
from vkfuse.pte.values import Extent

MAX_RANK: Final = 16  # kTensorDimensionLimit


def read_tensor(table: FlatTable, blobs: Blobs) -> Tensor:
    """Read a tensor and find its bytes."""
    sizes, dim_order = _shape(table)
    scalar_type = table.enumerated("scalar_type", ScalarType)
    allocation = _allocation(table)
    extra = table.child("extra_tensor_info")
    tensor = Tensor(
        scalar_type=scalar_type,
        sizes=sizes,
        dim_order=dim_order,
        dynamism=table.enumerated("shape_dynamism", ShapeDynamism),
        data_buffer_idx=table.integer("data_buffer_idx"),
        allocation=allocation,
        name=extra.name("fully_qualified_name") if extra else "",
        external=_external(extra),
        device=extra.enumerated("device_type", DeviceType) if extra else DeviceType.CPU,
        device_index=extra.integer("device_index") if extra else 0,
        requires_grad=table.integer("requires_grad"),
        layout=table.integer("layout"),
        initial_segment=extra.integer("mutable_data_segments_idx") if extra else 0,
    )
    return _with_data(tensor, table, blobs)


def _shape(table: FlatTable) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(sizes, dim_order), which must name the same dimensions."""
    sizes, dim_order = table.integers("sizes"), table.integers("dim_order")
    if len(sizes) > MAX_RANK:
        raise table.error(f"{len(sizes)} dimensions, more than {MAX_RANK}", "sizes")
    if any(size < 0 for size in sizes):
        raise table.error(f"negative size in {sizes}", "sizes")
    if sorted(dim_order) != list(range(len(sizes))):
        raise table.error(f"{dim_order} is no order of {len(sizes)} dimensions", "dim_order")
    if table.integer("storage_offset"):
        raise table.error("not zero, which no runtime supports", "storage_offset")
    return sizes, dim_order


def _allocation(table: FlatTable) -> Allocation | None:
    """Return the planned place of a tensor."""
    details = table.child("allocation_info")
    if details is None:
        return None
    offset = details.integer("memory_offset_low") | details.integer("memory_offset_high") << 32
    return Allocation(memory_id=details.integer("memory_id"), offset=offset)


def _external(extra: FlatTable | None) -> bool:
    """Whether the tensor's bytes are outside the .pte."""
    if extra is None:
        return False
    return extra.enumerated("location", TensorDataLocation) is TensorDataLocation.EXTERNAL


def _with_data(tensor: Tensor, table: FlatTable, blobs: Blobs) -> Tensor:
    """Return the tensor with its bytes, if it has any."""
    if tensor.external:
        return _with_external_data(tensor, table, blobs)
    if tensor.data_buffer_idx == 0:
        return tensor
    found = _find(tensor, table, blobs)
    return replace(tensor, data=found.data, data_at=found.at)


def _find(tensor: Tensor, table: FlatTable, blobs: Blobs) -> Bytes:
    """Return the bytes of a constant, or the initial state of a planned tensor."""
    if tensor.allocation is None:
        return blobs.constant(table, tensor.data_buffer_idx, tensor.nbytes)
    return blobs.initial_state(table, tensor.initial_segment, tensor.data_buffer_idx, tensor.nbytes)


def _with_external_data(tensor: Tensor, table: FlatTable, blobs: Blobs) -> Tensor:
    """Return the tensor with the bytes that a .ptd holds under its name, if one was supplied."""
    blob = blobs.external.get(tensor.name)
    if blob is None:
        return tensor
    where = table.path("extra_tensor_info.fully_qualified_name")
    return replace(tensor, data=cut(blob, Extent(0, tensor.nbytes), where))
