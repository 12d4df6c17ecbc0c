"""Where ExecuTorch's Vulkan runtime departs from what an operator's definition says; one constant each.

The executor does the same, and a run reports which of them applied. Paths are relative to
backends/vulkan/runtime/graph/ops in ExecuTorch 1.5. `wrong` says that results become something else;
the others are other arithmetic for the same operator.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """A departure: stable `code`, what happens, and the `source` that does it."""

    code: str
    summary: str
    source: str
    wrong: bool = True


DIM_ORDER_IGNORED: Final = Behaviour(
    code="dim-order-ignored",
    summary="tensors enter and leave a delegate as bytes in the default order of dimensions, channels_last ones too",
    source="../../VulkanBackend.cpp: execute copies numel elements from and to the tensor's memory as they lie",
)
INDICES_ONE_ROW: Final = Behaviour(
    code="indices-one-texture-row",
    summary="every index is fetched from the first row of the index texture; past its end they read as 0",
    source="glsl/embedding_q4gsw.glsl: texelFetch(t_indices, ivec3(indices_idx >> 2, 0, 0), 0)",
)
SCALE_PER_VEC4: Final = Behaviour(
    code="one-scale-per-four-values",
    summary="one scale is loaded for four values; a group that ends between them gets its neighbour's",
    source="glsl/embedding_q4gsw.glsl: dim / group_size once per four values",
)
FLAT_SCALES: Final = Behaviour(
    code="scales-read-flat",
    summary="the scales are a flat buffer of columns / group_size a row, whatever shape the file says",
    source="glsl/embedding_q4gsw.glsl: t_scales[embedding_idx * groups_per_row + dim / group_size]",
)
NO_BOUNDS_CHECK: Final = Behaviour(
    code="no-bounds-check",
    summary="an index outside of the table reads whatever lies there",
    source="glsl/embedding_q4gsw.glsl, glsl/embedding_buffer.glsl, glsl/embedding_texture.glsl",
)
FIRST_MATRIX_ONLY: Final = Behaviour(
    code="first-matrix-only",
    summary="of an input of more than two dimensions only the first matrix is multiplied",
    source="impl/Q4gswLinear.cpp: a third extent of 1; glsl/q4gsw_linear_gemm__w_4x8.glsl",
)
GROUP_TAIL: Final = Behaviour(
    code="group-rounded-to-four",
    summary="the input is walked in fours, group_size / 4 a group; columns past the last group are unread",
    source="glsl/q4gsw_linear_gemm__w_4x8.glsl: num_groups = K4 / K4_per_group",
)
ONE_ROW_UNQUANTIZED: Final = Behaviour(
    code="one-row-unquantized",
    summary="an 8-bit-dynamic linear with exactly one row uses the activation as it is",
    source="impl/QuantizedLinear.cpp: pick_linear_dqa_qw_shader; glsl/linear_q4gsw_coop.glsl",
    wrong=False,
)
QPARAMS_NUDGED: Final = Behaviour(
    code="qparams-nudged",
    summary="a row's zero point comes from the end of its range with the smaller error; scales are >= 6.1e-5",
    source="glsl/choose_qparams_per_row.glsl: calculate_scale_and_zero_point",
    wrong=False,
)
GELU_TANH: Final = Behaviour(
    code="gelu-always-tanh",
    summary="gelu is its tanh approximation whatever `approximate` says: off by up to 5e-4",
    source="impl/UnaryOp.cpp: gelu; glsl/unary_op.yaml",
    wrong=False,
)
ROWS_CLAMPED: Final = Behaviour(
    code="row-reduction-clamped",
    summary="a sum, mean, amax or amin along the rows of a buffer is clamped to +-65504, float32 too",
    source="glsl/reduce_per_row_buffer.glsl; glsl/convert.glslh: `#if T == float16_t` holds for every T",
)
POW_BY_LOGARITHM: Final = Behaviour(
    code="pow-of-negative",
    summary="a tensor to the power of a tensor is undefined where the base is negative, or zero and the power not positive",
    source="glsl/binary_op_texture.yaml, binary_op_buffer.yaml: pow(X, Y)",
)
POW_BY_MAGNITUDE: Final = Behaviour(
    code="pow-by-magnitude",
    summary="zero to any power but zero is zero; a negative base counts as positive unless the power is odd",
    source="glsl/binary_op_defs.glslh: power_of",
)
EQUAL_WITHIN: Final = Behaviour(
    code="equal-within-1e-5",
    summary="floats are equal when they differ by less than 1e-5; infinities are not equal to themselves",
    source="glsl/binary_op_texture.yaml, binary_op_buffer.yaml: lessThan(abs(X - Y), 1e-5)",
)
ALWAYS_FLOORED: Final = Behaviour(
    code="division-always-floored",
    summary="a division with a rounding mode rounds down, whichever mode it asks for",
    source="impl/BinaryOp.cpp: aten.div.Tensor_mode is floor_divide",
)
GROUP_NORM_OF_IMAGES: Final = Behaviour(
    code="group-norm-of-images",
    summary="a group norm of anything but [batch, channels, height, width] is NaN",
    source="impl/GroupNorm.cpp; measured",
)
MASKED_ROW_ZERO: Final = Behaviour(
    code="masked-row-zero",
    summary="softmax of nothing but minus infinity is zero, where torch has NaN",
    source="glsl/softmax.glsl: the largest value is at least -3.4e38, the denominator at least 1e-37",
)
