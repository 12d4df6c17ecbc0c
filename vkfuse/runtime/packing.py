"""Shaders that copy or pack constants while a delegate loads, and what these take on the device.

Each also asks for a `no_op` of the tensor that it fills (PrepackNode.cpp).
"""

from collections.abc import Iterator
from math import prod
from typing import Final

from vkfuse.multiples import ceil_div, round_up
from vkfuse.pte.enums import VkDataType, VkMemoryLayout
from vkfuse.runtime.device import TEXTURE, Device
from vkfuse.runtime.operands import Tensor
from vkfuse.runtime.spelling import storage, type_name

_BYTES: Final = (VkDataType.UINT8, VkDataType.INT8)
_KEPT: Final = ("pack_q4_linear_weight", "pack_q8_linear_weight")  # prepack_quantized_linear_weight's
_LANES: Final = 4  # values of a texel
_AXES: Final = 3  # of a texture; what lies further out is stacked along the third


class Filled(str):
    """The `no_op` of a tensor that a constant fills: `nbytes` that it takes on the device, as the runtime counts them.

    `constant` is what fills it, `shader` what packs it. Of one constant and one such shader the runtime keeps one tensor
    where it is `shared` (get_cached_prepack), else one for each call.
    """

    __slots__ = ("constant", "nbytes", "shader", "shared")
    constant: Tensor
    nbytes: int
    shader: str
    shared: bool


def fills(constant: Tensor, kind: str, into: str, nbytes: int, shader: str = "") -> Filled:
    """Return the tensor of a type and storage that a constant fills."""
    filled = Filled(f"no_op_{kind}_{into}")
    filled.constant, filled.nbytes, filled.shader, filled.shared = constant, nbytes, shader, shader in _KEPT
    return filled


def on_device(dims: tuple[int, ...], element: int, into: str, packed: int = -1) -> int:
    """Return the bytes of a tensor in a buffer, or in texels along an axis (Tensor.cpp)."""
    if into == "buffer":
        return round_up(prod(dims) * element, 4) if element == 1 else prod(dims) * element
    sizes = [*(1,) * (_AXES - len(dims)), *dims]
    sizes[packed] = round_up(sizes[packed], _LANES)
    return prod(sizes) * element


def in_texture(dims: tuple[int, ...], packed: int = -1) -> bool:
    """Whether a texture of ExecuTorch's usual limits holds a tensor whose texels lie along an axis."""
    sizes = [*(1,) * (_AXES - len(dims)), *dims]
    sizes[packed] = ceil_div(sizes[packed], _LANES)
    *depth, height, width = sizes
    return all(side <= most for side, most in zip((width, height, prod(depth)), TEXTURE, strict=True))


def copied(
    constant: Tensor | None, into: str, kind: VkDataType | None = None, axis: int = -1
) -> Iterator[str]:
    """Yield the names of a constant's copy into a tensor of any type, packed along `axis` (prepack_standard).

    Bytes in textures have two ways by device, and are left out.
    """
    if constant is None or not constant.constant:
        return
    kind = constant.dtype if kind is None else kind
    if kind not in _BYTES or into == "buffer":
        yield f"{filling(into)}_{type_name(kind)}_{type_name(constant.dtype)}"
    yield fills(constant, type_name(kind), into, on_device(constant.dims, kind.bytes, into, axis))


def filling(into: str) -> str:
    """Shader that fills a buffer or a texture, without its types (get_nchw_to_tensor_shader)."""
    return "nchw_to_buffer" if into == "buffer" else f"nchw_to_image_{into}"


def copied_like(constant: Tensor | None, model: Tensor | None) -> Iterator[str]:
    """Yield the names of a constant's copy into the storage of another tensor (prepack_standard_like)."""
    if model is not None:
        yield from copied(constant, storage(model), axis=packed_axis(model))


def packed_axis(tensor: Tensor) -> int:
    """Return the axis, from the end, whose values share a texel."""
    return -1 - (tensor.layout if tensor.layout <= VkMemoryLayout.TENSOR_CHANNELS_PACKED else 0)


def float_matrix(weight: Tensor, into: str, rank: int | None = None) -> Iterator[str]:
    """Yield the names of a float matrix, of `rank` sizes, in tiles of 4 x 4 (prepack_fp_linear_weight and its like)."""
    kind = type_name(weight.dtype)
    yield f"pack_fp_linear_weight_{into}_{kind}_{kind}"
    yield fills(weight, kind, into, in_tiles(weight.dims[:rank]) * weight.dtype.bytes)


def in_tiles(dims: tuple[int, ...]) -> int:
    """Return how many values a matrix, or a batch of them, has in tiles of 4 x 4."""
    return prod(dims[:-2]) * prod(round_up(size, 4) for size in dims[-2:])


def float_matrix_storage(device: Device, columns: int, rows: int, batch: int = 1) -> str:
    """Storage of a packed float matrix of [columns, rows] outputs and inputs: texels [batch * rows / 4, columns]."""
    return device.texels(round_up(columns, 4), batch * ceil_div(rows, 4))


def four_bit_texels(weight: Tensor) -> tuple[int, int]:
    """Texels of a packed 4-bit matrix [N, K/2] (prepack_quantized_linear_weight): [K/4, ceil(N/8)]."""
    return weight.dims[-1] * 2 // 4, ceil_div(weight.dims[-2], 8)


def eight_bit_texels(weight: Tensor) -> tuple[int, int]:
    """Texels of a packed 8-bit matrix [N, K] (prepack_quantized_linear_weight): [ceil(N/4), ceil(K/4)]."""
    return ceil_div(weight.dims[-2], 4), ceil_div(weight.dims[-1], 4)


def packed(shader: str, weight: Tensor, texels: tuple[int, int], into: str) -> Iterator[str]:
    """Yield the names of a weight packed into texels of four words of 32 bits."""
    yield f"{shader}_{into}"
    yield fills(weight, "int32", into, prod(texels) * 16, shader)
