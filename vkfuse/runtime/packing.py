"""Shaders that copy or pack constants while a delegate loads.

Each also asks for a `no_op` of the tensor that it fills (PrepackNode.cpp).
"""

from collections.abc import Iterator
from typing import Final

from vkfuse.pte.enums import VkDataType
from vkfuse.runtime.device import Device
from vkfuse.runtime.operands import Tensor
from vkfuse.runtime.spelling import storage, type_name

_BYTES: Final = (VkDataType.UINT8, VkDataType.INT8)


def copied(constant: Tensor | None, into: str, kind: VkDataType | None = None) -> Iterator[str]:
    """Yield the names of a constant's copy into a tensor of the same or another type (prepack_standard).

    Bytes in textures have two ways by device, and are left out.
    """
    if constant is None or not constant.constant:
        return
    kind = constant.dtype if kind is None else kind
    if kind not in _BYTES or into == "buffer":
        yield f"{filling(into)}_{type_name(kind)}_{type_name(constant.dtype)}"
    yield f"no_op_{type_name(kind)}_{into}"


def filling(into: str) -> str:
    """Shader that fills a buffer or a texture, without its types (get_nchw_to_tensor_shader)."""
    return "nchw_to_buffer" if into == "buffer" else f"nchw_to_image_{into}"


def copied_like(constant: Tensor | None, model: Tensor | None) -> Iterator[str]:
    """Yield the names of a constant's copy into the storage of another tensor (prepack_standard_like)."""
    if model is not None:
        yield from copied(constant, storage(model))


def float_matrix(weight: Tensor, into: str) -> Iterator[str]:
    """Yield the names of a float matrix in tiles of 4 x 4 (prepack_fp_linear_weight and its like)."""
    kind = type_name(weight.dtype)
    yield f"pack_fp_linear_weight_{into}_{kind}_{kind}"
    yield f"no_op_{kind}_{into}"


def float_matrix_storage(device: Device, columns: int, rows: int, batch: int = 1) -> str:
    """Storage of a packed float matrix of [columns, rows] outputs and inputs: texels [batch * rows / 4, columns]."""
    return device.texels(-(-columns // 4) * 4, batch * -(-rows // 4))


def four_bit_texels(weight: Tensor) -> tuple[int, int]:
    """Texels of a packed 4-bit matrix [N, K/2] (prepack_quantized_linear_weight): [K/4, ceil(N/8)]."""
    return weight.dims[-1] * 2 // 4, -(-weight.dims[-2] // 8)


def eight_bit_matrix_storage(device: Device, weight: Tensor) -> str:
    """Storage of a packed 8-bit matrix [N, K] (prepack_quantized_linear_weight): texels [K/4, ceil(N/4)]."""
    return device.texels(-(-weight.dims[-2] // 4), -(-weight.dims[-1] // 4))


def packed(shader: str, into: str) -> Iterator[str]:
    """Yield the names of a weight packed into words of 32 bits."""
    yield f"{shader}_{into}"
    yield f"no_op_int32_{into}"
