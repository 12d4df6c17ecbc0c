"""Linears with 4-bit and 8-bit weights, and the numbers that quantize their inputs."""

from collections.abc import Iterator
from typing import Final

from vkfuse.pte.calls import Call, rows
from vkfuse.pte.enums import VkDataType
from vkfuse.pte.shader_names.packing import (
    copied,
    eight_bit_matrix_storage,
    four_bit_matrix_storage,
    packed,
)
from vkfuse.pte.shader_names.spelling import (
    FLOATS,
    MAX_TEXTURE_2D,
    WIDTH,
    Namer,
    dtype,
    in_buffer,
    members,
    size,
    stored,
)
from vkfuse.pte.vulkan import VkTensor

_MATRIX: Final = 2
_PARAMETERS: Final = 2  # scales, zero points
_GROUP_IN_TWO: Final = 128  # from this group size on, two outputs a workgroup


def four_bit(call: Call) -> Iterator[str]:
    """Q4gswLinear.cpp: one shader for many rows, one for a single row, both made at load."""
    source, scales, bias, out = call.tensor(0), call.tensor(2), call.tensor(4), call.tensor(-1)
    if not (source and scales and out and out.dims):
        return
    yield from packed("pack_q4_linear_weight__w_4x8_nc", "buffer")
    yield from copied(scales, "buffer", source.dtype)
    yield from copied(bias, "buffer")
    way = "" if source.dtype is VkDataType.FLOAT32 else "tin__"
    if way:
        yield _transposed(call, source)
    width = out.dims[-1]
    split = "g1w64" if width <= 1024 else "g4w16" if width <= 4096 else "g8w8"
    yield f"q4gsw_linear_gemm__{way}w_4x8_nc_{stored(call.site, out)}"
    yield f"q4gsw_linear_gemv_coop__w_4x8_nc_buffer_{split}_{stored(call.site, out)}"


def _transposed(call: Call, source: VkTensor) -> str:
    """Preprocess.cpp: the input transposed into a buffer of its own type; anything but half is spelled float."""
    tiles = "" if in_buffer(call.site, source) else "_4x4"
    storage = "buffer" if in_buffer(call.site, source) else "texture3d"
    kind = "half" if source.dtype is VkDataType.FLOAT16 else "float"
    return f"transpose_cast_contig_to_vectorized{tiles}_{kind}_{storage}_{kind}_buffer"


def four_bit_quantized_input(call: Call) -> Iterator[str]:
    """QuantizedLinear.cpp, linear_dq8ca_q4gsw, on a device with integer dot products."""
    source, zeros, weight, out = call.tensor(0), call.tensor(2), call.tensor(3), call.tensor(-1)
    group = call.integer(6)
    way = _zero_points(zeros)
    if not (source and weight and out and group and way and len(weight.dims) == _MATRIX):
        return
    storage = four_bit_matrix_storage(weight)
    yield from packed("pack_q4_linear_weight", storage)
    for position in (4, 5, 7):
        yield from copied(call.tensor(position), "buffer")
    for position in (1, 2):
        yield from copied(call.tensor(position), "texture3d")
    split = "o2w32" if group >= _GROUP_IN_TWO else "o4w16"
    yield f"quantize_and_pack_4h4w_with_group_sums_{split}_buffer_{stored(call.site, source)}_{way}"
    threads = "coop" if size(source, -2) == 1 else "tiled"
    yield f"linear_dq8ca_q4gsw_{threads}_{call.site.storage_suffix(out)}_{storage}_{dtype(out)}_{way}"


def choose_qparams(call: Call) -> Iterator[str]:
    """ChooseQParams.cpp: a row of a matrix has a scale and a zero point."""
    source, outputs = call.tensor(0), members(call, -1)
    matrix = source is not None and len(source.dims) >= _MATRIX and rows(source.dims[:-1]) == 1
    if source and matrix and len(outputs) == _PARAMETERS and _zero_points(outputs[1]):
        yield f"choose_qparams_per_row_{stored(call.site, source)}_{_zero_points(outputs[1])}"


def _zero_points(zeros: VkTensor | None) -> str:
    """How zero points are kept (add_zp_dtype_mode_suffix), nothing for types that fail."""
    if zeros and zeros.dtype is VkDataType.INT8:
        return "zpint8"
    return "zpinherit" if zeros and zeros.dtype in FLOATS else ""


def eight_bit(call: Call) -> Iterator[str]:
    """QuantizedLinear.cpp, linear_q8csw: a float input."""
    weight, out = call.tensor(1), call.tensor(-1)
    if weight and out and len(weight.dims) == _MATRIX:
        storage = eight_bit_matrix_storage(weight)
        yield from packed("pack_q8_linear_weight", storage)
        for position in (2, 3):
            yield from copied(call.tensor(position), "buffer")
        yield f"linear_q8csw_tiled_{call.site.storage_suffix(out)}_{storage}_{dtype(out)}"


def eight_bit_quantized_input(call: Call) -> Iterator[str]:
    """QuantizedLinear.cpp, linear_q8ta_q8csw, on a device with integer dot products: one scale for the input."""
    source, weight, out = call.tensor(0), call.tensor(3), call.tensor(-1)
    if source and weight and out and len(weight.dims) == _MATRIX:
        storage = eight_bit_matrix_storage(weight)
        yield from packed("pack_q8_linear_weight", storage)
        for position in (4, 5, 6):
            yield from copied(call.tensor(position), "buffer")
        yield f"quantize_and_pack_4h4w_per_tensor_buffer_{stored(call.site, source)}"
        yield f"linear_q8ta_q8csw_tiled_{call.site.storage_suffix(out)}_buffer_{storage}_{dtype(out)}"


def per_channel(bits: int) -> Namer:
    """QuantizedLinearQCSNW.cpp: scales of channels; tiles of rows by what divides them, cooperating for a single row."""

    def names(call: Call) -> Iterator[str]:
        source, weight, scales, out = call.tensor(0), call.tensor(1), call.tensor(2), call.tensor(-1)
        if not (source and weight and scales and out and len(weight.dims) == _MATRIX):
            return
        if {source.layout, out.layout} != {WIDTH} or not weight.constant:
            return
        if bits == 8 and not _tiles(source, out):
            yield from _untiled(call, weight, scales, out)
        elif _tiles(source, out):
            yield from _in_tiles(call, bits, source, weight, scales, out)

    return names


def _tiles(source: VkTensor, out: VkTensor) -> bool:
    """can_use_tiled_impl: one matrix, and inputs and outputs in fours."""
    return (len(source.dims) != 3 or source.dims[0] == 1) and not (size(source, -1) % 4 or size(out, -1) % 4)


def _untiled(call: Call, weight: VkTensor, scales: VkTensor, out: VkTensor) -> Iterator[str]:
    """add_linear_qcs8w_node: a weight and scales stored as the output is."""
    storage = call.site.storage_suffix(out)
    yield from copied(weight, storage)
    yield from copied(scales, storage)
    yield f"linear_qcs8w_W_packed_W_packed_{dtype(out)}_{storage}"


def _in_tiles(
    call: Call, bits: int, source: VkTensor, weight: VkTensor, scales: VkTensor, out: VkTensor
) -> Iterator[str]:
    """add_linear_qcsnw_tiled_node, on a device with 8-bit buffers and no Adreno 702."""
    channels, columns = weight.dims
    storage = "buffer"
    if bits == 4:
        yield "pack_int4_linear_weight_transposed_interleaved_buffer"
        yield "no_op_uint8_buffer"
    else:
        storage = "texture2d" if max(channels // 4, columns) <= MAX_TEXTURE_2D else "buffer"
        yield from copied(weight, storage)
    row = "texture2d" if channels <= MAX_TEXTURE_2D else "buffer"
    yield from copied(scales, row)
    height = size(source, -2)
    threads = "coop" if height == 1 else "tiled"
    tile = next(rows for rows in (3, 4, 2, 1) if height % rows == 0)
    places = f"{call.site.storage_suffix(out)}_{call.site.storage_suffix(source)}_{storage}_{row}"
    yield f"linear_qcs{bits}w_{threads}_{places}_{dtype(out)}_o4x{tile}"


NAMERS: Final[dict[str, Namer]] = {
    "et_vk.linear_q4gsw.default": four_bit,
    "et_vk.q4gsw_linear.default": four_bit,
    "et_vk.linear_dq8ca_q4gsw.default": four_bit_quantized_input,
    "et_vk.linear_q8csw.default": eight_bit,
    "et_vk.linear_q8ta_q8csw.default": eight_bit_quantized_input,
    "aten._weight_int8pack_mm.default": per_channel(8),
    "et_vk.linear_qcs4w.default": per_channel(4),
    "torchao.choose_qparams_affine.default": choose_qparams,
}
