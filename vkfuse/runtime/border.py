"""Shaders that copy a delegate's inputs and outputs (utils/StagingUtils.cpp, Staging.cpp)."""

from collections.abc import Iterable, Iterator

from vkfuse.pte.enums import VkDataType
from vkfuse.runtime.operands import Tensor
from vkfuse.runtime.packing import filling
from vkfuse.runtime.spelling import PACKED_INT8, storage, type_name


def border_shaders(inputs: Iterable[Tensor], outputs: Iterable[Tensor]) -> Iterator[str]:
    """Yield the names for inputs, then outputs; constants cross no border.

    Of the two that copy a texture out, chosen by the device, one stands for both.
    """
    yield from (_copy_in(tensor) for tensor in inputs if not tensor.constant)
    yield from (_copy_out(tensor) for tensor in outputs if not tensor.constant)


def _copy_in(tensor: Tensor) -> str:
    """Return the shader that fills a tensor from a buffer."""
    if tensor.layout in PACKED_INT8:
        return "nchw_to_int8x4_buffer"
    return f"{filling(storage(tensor))}_{_types(tensor)}"


def _copy_out(tensor: Tensor) -> str:
    """Return the shader that copies a tensor into a buffer."""
    if tensor.layout in PACKED_INT8:
        return "int8x4_buffer_to_nchw"
    prefix = "buffer_to_nchw" if tensor.in_buffer else f"image_to_nchw_{storage(tensor)}"
    return f"{prefix}_{_types(tensor)}"


def _types(tensor: Tensor) -> str:
    """Element types of the tensor and of the buffer that it is copied through (get_staging_scalar_type_of)."""
    staging = tensor.dtype if tensor.staging is VkDataType.UNSET else tensor.staging
    return f"{type_name(tensor.dtype)}_{type_name(staging)}"
