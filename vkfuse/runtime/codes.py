"""The stable codes of what a runtime does not do, or does otherwise: one code a fact.

`data/codes.txt` says what each means, and where it was read or seen.
"""

from dataclasses import dataclass
from enum import StrEnum, auto
from functools import cache
from typing import Literal, cast

from vkfuse.runtime.data import lines

Effect = Literal["fails", "wrong", "depends", "note"]


class Code(StrEnum):
    """A fact.

    `effect`: the runtime `fails` on it, computes something else (`wrong`), or does so for some values (`depends`); a
    `note` is what the runtime needs, or other arithmetic by design, and no fault.
    """

    @staticmethod
    def _generate_next_value_(name: str, *_: object) -> str:
        return name.lower().replace("_", "-")

    # What the runtime has.
    NOT_REGISTERED = auto()
    NO_SHADER = auto()
    NO_KERNEL = auto()
    ZERO_POINTS_NOT_INT64 = auto()
    NEEDS_OPTIMIZED_KERNELS = auto()
    NEEDS_QUANTIZED_KERNELS = auto()
    NEEDS_LLM_KERNELS = auto()
    NEEDS_OWN_KERNEL = auto()
    NEEDS_8_BIT_STORAGE = auto()
    NEEDS_16_BIT_STORAGE = auto()

    # Tensors of any operator.
    MORE_THAN_4_DIMS = auto()
    BEYOND_LARGEST_BUFFER = auto()
    BEYOND_LARGEST_TEXTURE = auto()
    EMPTY_TENSOR = auto()
    NO_RESIZE = auto()
    INTEGER_ARITHMETIC = auto()
    NOT_FINITE = auto()
    TYPES_NOT_PROMOTED = auto()
    DIM_ORDER_IGNORED = auto()
    NOT_A_CONSTANT = auto()

    # A delegate's border.
    CONSTANT_INPUT = auto()
    CONSTANT_OUTPUT = auto()
    ARGUMENT_COUNT = auto()
    BOUNDARY_TYPE = auto()
    EXTERNAL_CONSTANTS = auto()
    OTHER_BACKEND = auto()
    MISSING_CONSTANT = auto()
    NO_OUTPUT = auto()

    # Lookups and 4-bit weights.
    COLUMNS_NOT_MULTIPLE_OF_32 = auto()
    GROUP_NOT_MULTIPLE_OF_4 = auto()
    GROUP_DOES_NOT_DIVIDE_COLUMNS = auto()
    GROUP_SUMMED_IN_TURNS = auto()
    INDICES_MORE_THAN_ONE_ROW = auto()
    INDICES_STORED_UNLIKE_OUTPUT = auto()
    SCALES_READ_FLAT = auto()
    NO_BOUNDS_CHECK = auto()
    INDEX_LATER_AXIS = auto()
    ROWS_ACROSS_TEXELS = auto()
    DIMENSION_FROM_THE_END = auto()

    # Linears.
    LINEAR_INPUT_BATCHED = auto()
    PACKED_OTHERWISE = auto()
    PACKING_IGNORED = auto()
    ROWS_NOT_MULTIPLE_OF_4 = auto()
    COLUMNS_NOT_MULTIPLE_OF_4 = auto()
    COLUMNS_NOT_MULTIPLE_OF_8 = auto()
    MORE_ROWS_THAN_COLUMNS = auto()
    ROWS_LEFT_OUT = auto()
    SUMS_IN_HALF = auto()
    QUANTIZED_INPUT_BATCHED = auto()
    QPARAMS_NOT_PER_ROW = auto()
    ONE_ROW_NOT_QUANTIZED = auto()
    QPARAMS_NUDGED = auto()

    # Norms, reductions, pools.
    LAYER_NORM_WITHOUT_BIAS = auto()
    LAYER_NORM_SHAPE = auto()
    LAYER_NORM_WIDTH = auto()
    RMS_NORM_WEIGHT = auto()
    GROUP_NORM_SHAPE = auto()
    BATCH_NORM_SHAPE = auto()
    REDUCE_DIMS = auto()
    ARG_REDUCE = auto()
    ROW_REDUCTION_CLAMPED = auto()
    SOFTMAX_DIM = auto()
    MASKED_ROW_ZERO = auto()
    SHORT_SOFTMAX_FROM_ZERO = auto()
    POOL_ARGUMENTS = auto()
    UPSAMPLE_SCALES = auto()
    NEAREST_BY_CENTRE = auto()

    # Convolutions.
    CONVOLUTION_ARGUMENTS = auto()
    CONVOLUTION_BATCHED = auto()
    CONVOLUTION_GROUPS = auto()
    CONVOLUTION_SIZES = auto()
    PADDING_LOST = auto()

    # Arithmetic.
    TWO_SCALARS = auto()
    DIVISOR_NOT_KNOWN = auto()
    NUMBER_BEYOND_32_BITS = auto()
    DIVISION_ALWAYS_FLOORED = auto()
    POW_OF_NEGATIVE = auto()
    POW_BY_MAGNITUDE = auto()
    EQUAL_WITHIN_1E_5 = auto()
    GELU_BY_TANH = auto()
    SINE_OF_LARGE = auto()
    CONDITION_RANK = auto()

    # Attention.
    ROTARY_HEADS_DIFFER = auto()
    ROPE_WIDTH = auto()
    SDPA_RANK = auto()
    SDPA_ARGUMENT = auto()
    ROWS_BEHIND_ZEROED = auto()

    # Why else an operator is on the CPU.
    FEEDS_THE_CPU = auto()
    READ_AS_NUMBER = auto()
    PARTITIONER = auto()
    EXECUTORCH_RAISES = auto()
    NOT_PARTITIONED = auto()
    RUNTIME_PRIMITIVE = auto()
    BASELINE = auto()

    @property
    def effect(self) -> Effect:
        """What the runtime does."""
        return cast("Effect", _facts()[self][0])

    @property
    def meaning(self) -> str:
        """The fact, in a line."""
        return _facts()[self][1]

    @property
    def remedy(self) -> str:
        """What helps, empty where nothing does."""
        return "".join(_facts()[self][2:3])


@cache
def _facts() -> dict[str, list[str]]:
    """Effect, meaning, and perhaps remedy and source, by code."""
    return {code: facts for code, *facts in (line.split(" | ") for line in lines("codes.txt"))}


@dataclass(frozen=True, slots=True)
class Objection:
    """A code that holds for a call, and the numbers: of a shader that is missing its name."""

    code: Code
    detail: str
