"""Shaders that copy or pack constants while a delegate loads.

Each also asks for a `no_op` of the tensor that it fills (PrepackNode.cpp).
"""

from collections.abc import Iterator
from typing import Final

from vkfuse.pte.calls import Site, dtype_suffix
from vkfuse.pte.enums import VkDataType
from vkfuse.pte.shader_names.spelling import MAX_TEXTURE_2D
from vkfuse.pte.vulkan import VkTensor

_BYTES: Final = (VkDataType.UINT8, VkDataType.INT8)


def copied(constant: VkTensor | None, storage: str, kind: VkDataType | None = None) -> Iterator[str]:
    """Yield the names of a constant's copy into a tensor of the same or another type (prepack_standard).

    Bytes in textures have two ways by device, and are left out.
    """
    if constant is None or not constant.constant:
        return
    kind = constant.dtype if kind is None else kind
    if kind not in _BYTES or storage == "buffer":
        yield f"{into(storage)}_{dtype_suffix(kind)}_{dtype_suffix(constant.dtype)}"
    yield f"no_op_{dtype_suffix(kind)}_{storage}"


def into(storage: str) -> str:
    """Shader that fills a buffer or a texture, without its types (get_nchw_to_tensor_shader)."""
    return "nchw_to_buffer" if storage == "buffer" else f"nchw_to_image_{storage}"


def copied_like(constant: VkTensor | None, model: VkTensor | None, site: Site) -> Iterator[str]:
    """Yield the names of a constant's copy into the storage of another tensor (prepack_standard_like)."""
    if model is not None:
        yield from copied(constant, site.storage_suffix(model))


def float_matrix(weight: VkTensor, storage: str) -> Iterator[str]:
    """Yield the names of a float matrix in tiles of 4 x 4 (prepack_fp_linear_weight and its like)."""
    kind = dtype_suffix(weight.dtype)
    yield f"pack_fp_linear_weight_{storage}_{kind}_{kind}"
    yield f"no_op_{kind}_{storage}"


def float_matrix_storage(columns: int, rows: int, batch: int = 1) -> str:
    """Storage of a packed float matrix of [columns, rows] outputs and inputs: texels [batch * rows / 4, columns]."""
    return texels(-(-columns // 4) * 4, batch * -(-rows // 4))


def four_bit_matrix_storage(weight: VkTensor) -> str:
    """Storage of a packed 4-bit matrix [N, K/2] (prepack_quantized_linear_weight): texels [ceil(N/8), K/4]."""
    return texels(weight.dims[-1] * 2 // 4, -(-weight.dims[-2] // 8))


def eight_bit_matrix_storage(weight: VkTensor) -> str:
    """Storage of a packed 8-bit matrix [N, K] (prepack_quantized_linear_weight): texels [K/4, ceil(N/4)]."""
    return texels(-(-weight.dims[-2] // 4), -(-weight.dims[-1] // 4))


def packed(shader: str, storage: str) -> Iterator[str]:
    """Yield the names of a weight packed into words of 32 bits."""
    yield f"{shader}_{storage}"
    yield f"no_op_int32_{storage}"


def texels(width: int, height: int) -> str:
    """Storage of this many texels."""
    return "texture2d" if max(width, height) <= MAX_TEXTURE_2D else "buffer"
