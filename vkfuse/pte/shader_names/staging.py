"""Shaders that copy a delegate's inputs and outputs (utils/StagingUtils.cpp, Staging.cpp)."""

from collections.abc import Iterator

from vkfuse.pte.calls import Site, dtype_suffix
from vkfuse.pte.enums import VkDataType
from vkfuse.pte.shader_names.packing import into
from vkfuse.pte.shader_names.spelling import PACKED_INT8, in_buffer
from vkfuse.pte.vulkan import VkTensor


def staging_shader_names(site: Site) -> Iterator[str]:
    """Yield the names for inputs, then outputs.

    Of the two that copy a texture out, chosen by the device, one stands for both.
    """
    values = site.graph.values
    for index in site.graph.input_ids:
        tensor = values[index]
        if isinstance(tensor, VkTensor) and not tensor.constant:
            yield _copy_in(site, tensor)
    for index in site.graph.output_ids:
        tensor = values[index]
        if isinstance(tensor, VkTensor) and not tensor.constant:
            yield _copy_out(site, tensor)


def _copy_in(site: Site, tensor: VkTensor) -> str:
    """Return the shader that fills a tensor from a buffer."""
    if tensor.layout in PACKED_INT8:
        return "nchw_to_int8x4_buffer"
    return f"{into(site.storage_suffix(tensor))}_{_types(tensor)}"


def _copy_out(site: Site, tensor: VkTensor) -> str:
    """Return the shader that copies a tensor into a buffer."""
    if tensor.layout in PACKED_INT8:
        return "int8x4_buffer_to_nchw"
    prefix = "buffer_to_nchw" if in_buffer(site, tensor) else f"image_to_nchw_{site.storage_suffix(tensor)}"
    return f"{prefix}_{_types(tensor)}"


def _types(tensor: VkTensor) -> str:
    """Element types of the tensor and of the buffer that it is copied through (get_staging_scalar_type_of)."""
    staging = tensor.dtype if tensor.staging_dtype is VkDataType.UNSET else tensor.staging_dtype
    return f"{dtype_suffix(tensor.dtype)}_{dtype_suffix(staging)}"
