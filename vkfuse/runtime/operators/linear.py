"""Linears with 4-bit and 8-bit weights, and the numbers that quantize their inputs."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from vkfuse.multiples import ceil_div, round_up
from vkfuse.pte.enums import VkDataType
from vkfuse.runtime.axes import times_a_weight
from vkfuse.runtime.codes import Code, Objection
from vkfuse.runtime.operands import Operands, Tensor
from vkfuse.runtime.packing import copied, eight_bit_texels, fills, four_bit_texels, packed
from vkfuse.runtime.record import Namer, Operator, Rule, TableArguments
from vkfuse.runtime.rules import (
    group_divides_columns,
    group_multiple_of_4,
    multiple,
    no_texture_from_a_buffer,
    one_matrix,
    packed_by_width,
)
from vkfuse.runtime.spelling import FLOATS, WIDTH, dtype, storage, stored

FUSED: Final = "et_vk.linear_q4gsw.default"
FUSED_BYTES: Final = "et_vk.linear_q8csw.default"
BYTES_BY_CHANNEL: Final = "aten._weight_int8pack_mm.default"
_MATRIX: Final = 2
_PARAMETERS: Final = 2  # scales, zero points
_IN_FOURS: Final = multiple(4, Code.COLUMNS_NOT_MULTIPLE_OF_4, "input")
_ROWS_IN_FOURS: Final = multiple(4, Code.ROWS_NOT_MULTIPLE_OF_4, "weight", 0)
_GROUPS: Final = (group_multiple_of_4, group_divides_columns)
_BY_WIDTH: Final = (packed_by_width(Code.PACKING_IGNORED, "input"), no_texture_from_a_buffer("input"))
_ONE_MATRIX: Final = one_matrix(Code.LINEAR_INPUT_BATCHED)  # Q4gswLinear.cpp: sizes of the last two
_THREADS: Final = 64  # linear_qcsnw_tiled_local_wg_size
_GROUP_IN_TWO: Final = 128  # from this group size on, two outputs a workgroup


def in_a_buffer_columns_in_fours(ops: Operands) -> Iterator[Objection]:
    """ChooseQParams.cpp, can_use_choose_qparams_per_row: width % 4 == 0 in a buffer."""
    source = ops.tensor("input")
    if source and source.in_buffer:
        yield from _IN_FOURS(ops)


def in_a_buffer_rows_in_fours(ops: Operands) -> Iterator[Objection]:
    """glsl/linear_q8csw_tiled.glsl writes four outputs at a time, in a buffer over the next row's (measured: 1.7 off)."""
    if ops.out and ops.out.in_buffer:
        yield from _ROWS_IN_FOURS(ops)


def parameters_of_rows(ops: Operands) -> Iterator[Objection]:
    """ChooseQParams.cpp: one scale and zero point a row."""
    source, block = ops.tensor("input"), ops.members("block_size")
    row = source and (*(1,) * (len(source.dims) - 1), *source.dims[-1:])
    if block and source and block != row:
        yield Objection(Code.QPARAMS_NOT_PER_ROW, f"blocks of {list(block)}")


def one_row_is_not_quantized(ops: Operands) -> Iterator[Objection]:
    """QuantizedLinear.cpp: a single row is multiplied without quantizing it (measured: 0.4-1% off eager)."""
    source = ops.tensor("input")
    if source and source.rows == 1:
        yield Objection(Code.ONE_ROW_NOT_QUANTIZED, f"input {list(source.dims)}")


def sum_threads(group: int) -> int:
    """QuantizedLinear.cpp: how many threads sum the inputs of a group, of which each takes four columns in a turn."""
    return 32 if group >= _GROUP_IN_TWO else 16


def summed_at_once(group: int) -> int:
    """The largest part of a group, in fours, of which each thread that sums its inputs has one turn."""
    parts = (size for size in range(group, 0, -4) if group % size == 0 and size <= 4 * sum_threads(size))
    return next(parts, group)


def groups_are_summed_at_once(ops: Operands) -> Iterator[Objection]:
    """glsl/quantize_and_pack_4h4w_with_group_sums.glsl adds a sum to itself; a single row is not quantized."""
    source, group = ops.tensor("input"), ops.integer("group_size")
    if source and source.rows != 1 and group and group > 4 * sum_threads(group):
        yield Objection(Code.GROUP_SUMMED_IN_TURNS, f"groups of {group}")


def row_sums_fit(ops: Operands) -> Iterator[Objection]:
    """QuantizedLinear.cpp up to 1.4: `int_input_sums` holds as many sums as the input has columns, in half half."""
    source = ops.tensor("input")
    if source is None or not source.dims:
        return
    most = source.dims[-1] // (2 if source.dtype is VkDataType.FLOAT16 else 1)
    if source.rows > most:
        yield Objection(Code.MORE_ROWS_THAN_COLUMNS, f"{source.rows} rows, sums of {most} fit")


def four_bit(ops: Operands) -> Iterator[str]:
    """Q4gswLinear.cpp: one shader for many rows, one for a single row, both made at load."""
    source, scales, weight, out = ops.tensor("input"), ops.tensor("scales"), ops.tensor("weight"), ops.out
    if not (source and scales and out and out.dims):
        return
    if weight and len(weight.dims) == _MATRIX:
        yield from packed("pack_q4_linear_weight__w_4x8_nc", weight, four_bit_texels(weight), "buffer")
    yield from copied(scales, "buffer", source.dtype)
    yield from copied(ops.tensor("bias"), "buffer")
    way = "" if source.dtype is VkDataType.FLOAT32 else "tin__"
    if way:
        yield _transposed(source)
    width = out.dims[-1]
    split = "g1w64" if width <= 1024 else "g4w16" if width <= 4096 else "g8w8"
    yield f"q4gsw_linear_gemm__{way}w_4x8_nc_{stored(out)}"
    yield f"q4gsw_linear_gemv_coop__w_4x8_nc_buffer_{split}_{stored(out)}"


def _transposed(source: Tensor) -> str:
    """Preprocess.cpp: the input transposed into a buffer of its own type; anything but half is spelled float."""
    tiles, place = ("", "buffer") if source.in_buffer else ("_4x4", "texture3d")
    kind = "half" if source.dtype is VkDataType.FLOAT16 else "float"
    return f"transpose_cast_contig_to_vectorized{tiles}_{kind}_{place}_{kind}_buffer"


def four_bit_quantized_input(ops: Operands) -> Iterator[str]:
    """QuantizedLinear.cpp, linear_dq8ca_q4gsw, on a device with integer dot products."""
    source, weight, out = ops.tensor("input"), ops.tensor("weight"), ops.out
    group, way = ops.integer("group_size"), _zero_points(ops.tensor("input_zeros"))
    if not (source and weight and out and group and way and len(weight.dims) == _MATRIX):
        return
    place = ops.device.texels(*four_bit_texels(weight))
    yield from packed("pack_q4_linear_weight", weight, four_bit_texels(weight), place)
    for name in ("weight_sums", "scales", "bias"):
        yield from copied(ops.tensor(name), "buffer")
    for name in ("input_scales", "input_zeros"):
        yield from copied(ops.tensor(name), "texture3d")
    split = f"o{64 // sum_threads(group)}w{sum_threads(group)}"
    yield f"quantize_and_pack_4h4w_with_group_sums_{split}_buffer_{stored(source)}_{way}"
    threads = "coop" if source.size(-2) == 1 else "tiled"
    yield f"linear_dq8ca_q4gsw_{threads}_{storage(out)}_{place}_{dtype(out)}_{way}"


def choose_qparams(ops: Operands) -> Iterator[str]:
    """ChooseQParams.cpp: a row of a matrix has a scale and a zero point."""
    source, outputs = ops.tensor("input"), ops.outs
    matrix = source is not None and len(source.dims) >= _MATRIX and source.matrices == 1
    if source and matrix and len(outputs) == _PARAMETERS and _zero_points(outputs[1]):
        yield f"choose_qparams_per_row_{stored(source)}_{_zero_points(outputs[1])}"


def _zero_points(zeros: Tensor | None) -> str:
    """How zero points are kept (add_zp_dtype_mode_suffix), nothing for types that fail."""
    if zeros and zeros.dtype is VkDataType.INT8:
        return "zpint8"
    return "zpinherit" if zeros and zeros.dtype in FLOATS else ""


def eight_bit(ops: Operands) -> Iterator[str]:
    """QuantizedLinear.cpp, linear_q8csw: a float input."""
    weight, out = ops.tensor("weight"), ops.out
    if weight and out and len(weight.dims) == _MATRIX:
        place = ops.device.texels(*eight_bit_texels(weight))
        yield from packed("pack_q8_linear_weight", weight, eight_bit_texels(weight), place)
        for name in ("scales", "bias"):
            yield from copied(ops.tensor(name), "buffer")
        yield f"linear_q8csw_tiled_{storage(out)}_{place}_{dtype(out)}"


def eight_bit_quantized_input(ops: Operands) -> Iterator[str]:
    """QuantizedLinear.cpp, linear_q8ta_q8csw, on a device with integer dot products: one scale for the input."""
    source, weight, out = ops.tensor("input"), ops.tensor("weight"), ops.out
    if source and weight and out and len(weight.dims) == _MATRIX:
        place = ops.device.texels(*eight_bit_texels(weight))
        yield from packed("pack_q8_linear_weight", weight, eight_bit_texels(weight), place)
        for name in ("weight_sums", "scales", "bias"):
            yield from copied(ops.tensor(name), "buffer")
        yield f"quantize_and_pack_4h4w_per_tensor_buffer_{stored(source)}"
        yield f"linear_q8ta_q8csw_tiled_{storage(out)}_buffer_{place}_{dtype(out)}"


def per_channel(bits: int) -> Namer:
    """QuantizedLinearQCSNW.cpp: scales of channels; tiles of rows by what divides them, cooperating for a single row."""

    def names(ops: Operands) -> Iterator[str]:
        source, weight, scales, out = ops.tensor("input"), ops.tensor("weight"), ops.tensor("scales"), ops.out
        if not (source and weight and scales and out and len(weight.dims) == _MATRIX):
            return
        if {source.layout, out.layout} != {WIDTH} or not weight.constant:
            return
        if bits == 8 and not _tiles(source, out):
            yield from _untiled(weight, scales, out)
        elif _tiles(source, out):
            yield from _in_tiles(ops, bits, source, weight, scales, out)

    return names


def _tiles(source: Tensor, out: Tensor) -> bool:
    """can_use_tiled_impl: one matrix, and inputs and outputs in fours."""
    return (len(source.dims) != 3 or source.dims[0] == 1) and not (source.size(-1) % 4 or out.size(-1) % 4)


def _untiled(weight: Tensor, scales: Tensor, out: Tensor) -> Iterator[str]:
    """add_linear_qcs8w_node: a weight and scales stored as the output is."""
    place = storage(out)
    yield from copied(weight, place)
    yield from copied(scales, place)
    yield f"linear_qcs8w_W_packed_W_packed_{dtype(out)}_{place}"


def _in_tiles(
    ops: Operands, bits: int, source: Tensor, weight: Tensor, scales: Tensor, out: Tensor
) -> Iterator[str]:
    """add_linear_qcsnw_tiled_node, on a device with 8-bit buffers and no Adreno 702."""
    channels, columns = weight.dims
    place = "buffer"
    if bits == 4:
        yield "pack_int4_linear_weight_transposed_interleaved_buffer"
        yield fills(weight, "uint8", "buffer", channels * columns)
    else:
        place = ops.device.texels(channels // 4, columns)
        yield from copied(weight, place)
    row = ops.device.texels(channels, 1)
    yield from copied(scales, row)
    height = source.size(-2)
    threads = "coop" if height == 1 else "tiled"
    places = f"{storage(out)}_{storage(source)}_{place}_{row}"
    yield f"linear_qcs{bits}w_{threads}_{places}_{dtype(out)}_o4x{_tile(height)}"


def _tile(rows: int) -> int:
    """linear_qcsnw_tiled_global_wg_size: how many rows of the output an invocation computes."""
    return next(size for size in (3, 4, 2, 1) if rows % size == 0)


def tiles_reach_all_rows(bits: int) -> Rule:
    """The shader has the tile of the longest input, a call as many tiles as it has of its own (measured: 1.0 off)."""

    def rule(ops: Operands) -> Iterator[Objection]:
        source, out = ops.tensor("input"), ops.out
        if not (source and out and len(source.dims) - 2 in source.dynamic and _tiles(source, out)):
            return
        texels, longest = ceil_div(out.size(-1), 4 if bits == 8 else 8), source.size(-2)
        for rows in range(1, longest):
            if round_up(texels * ceil_div(rows, _tile(rows)), _THREADS) < texels * ceil_div(
                rows, _tile(longest)
            ):
                yield Objection(Code.ROWS_LEFT_OUT, f"{rows} of at most {longest} rows")
                return

    return rule


_DEPARTS: Final = (
    *(Code.LINEAR_INPUT_BATCHED, Code.GROUP_NOT_MULTIPLE_OF_4, Code.GROUP_DOES_NOT_DIVIDE_COLUMNS),
    Code.SCALES_READ_FLAT,
)
_DYNAMIC: Final = Operator(
    "et_vk.linear_dq8ca_q4gsw.default",
    "input input_scales input_zeros weight weight_sums scales group_size bias",
    constants="weight weight_sums scales bias",
    rules=(
        *_GROUPS,
        multiple(8, Code.COLUMNS_NOT_MULTIPLE_OF_8, "input"),
        groups_are_summed_at_once,
        one_row_is_not_quantized,
        *_BY_WIDTH,
    ),
    departs=(*_DEPARTS, Code.ONE_ROW_NOT_QUANTIZED, Code.GROUP_SUMMED_IN_TURNS),
    axes=times_a_weight,
    shaders=four_bit_quantized_input,
    table=TableArguments(
        consumer="matmul", scales="scales", also=("weight_sums",), group="group_size", bits=4, turned=True
    ),
    integers=True,
    weighty=True,
    since=(1, 5, 0),
)
OPERATORS: Final = (
    *(
        Operator(
            name,
            "input weight scales group_size bias",
            constants="weight scales bias",
            rules=(*_GROUPS, _ONE_MATRIX, _ROWS_IN_FOURS, *_BY_WIDTH),
            departs=_DEPARTS,
            axes=times_a_weight,
            shaders=four_bit,
            table=TableArguments(consumer="matmul", scales="scales", group="group_size", bits=4, turned=True),
            integers=True,
            weighty=True,
        )
        for name in (FUSED, "et_vk.q4gsw_linear.default")
    ),
    _DYNAMIC,
    replace(_DYNAMIC, rules=(*_DYNAMIC.rules, row_sums_fit), since=(0, 0, 0), until=(1, 4, 99)),
    Operator(
        FUSED_BYTES,
        "input weight scales bias",
        constants="weight scales bias",
        rules=(_IN_FOURS, _ONE_MATRIX, in_a_buffer_rows_in_fours, *_BY_WIDTH),
        departs=(Code.LINEAR_INPUT_BATCHED,),
        axes=times_a_weight,
        shaders=eight_bit,
        table=TableArguments(consumer="matmul", scales="scales"),
        integers=True,
        weighty=True,
    ),
    Operator(
        "et_vk.linear_q8ta_q8csw.default",
        "input input_scale input_zero weight weight_sums scales bias",
        constants="weight weight_sums scales bias",
        rules=(_IN_FOURS,),
        departs=(Code.LINEAR_INPUT_BATCHED,),
        axes=times_a_weight,
        shaders=eight_bit_quantized_input,
    ),
    Operator(
        BYTES_BY_CHANNEL,
        "input weight scales",
        rules=(tiles_reach_all_rows(8),),
        axes=times_a_weight,
        shaders=per_channel(8),
    ),
    Operator(
        "et_vk.linear_qcs4w.default",
        "input weight scales",
        rules=(_IN_FOURS, _ONE_MATRIX, _ROWS_IN_FOURS, tiles_reach_all_rows(4)),
        departs=(Code.LINEAR_INPUT_BATCHED,),
        axes=times_a_weight,
        shaders=per_channel(4),
    ),
    Operator(
        "torchao.choose_qparams_affine.default",
        "input mapping block_size",
        rules=(
            one_matrix(Code.QUANTIZED_INPUT_BATCHED),
            in_a_buffer_columns_in_fours,
            parameters_of_rows,
        ),
        departs=(Code.QPARAMS_NUDGED, Code.NOT_FINITE),
        shaders=choose_qparams,
        integers=True,
    ),
    Operator(
        "torchao.dequantize_affine.default",
        "weight block_size scales zero_points",
        table=TableArguments(consumer="dequantize", scales="scales", also=("zero_points",)),
    ),
)
