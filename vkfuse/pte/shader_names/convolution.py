"""Convolutions: pointwise, depthwise, by matrix product, direct and transposed, in two dimensions and in one."""

from collections.abc import Iterator
from typing import Final

from vkfuse.pte.calls import Call, dtype_suffix
from vkfuse.pte.enums import VkDataType
from vkfuse.pte.shader_names.packing import copied, float_matrix, float_matrix_storage
from vkfuse.pte.shader_names.spelling import CHANNELS, HEIGHT, MAX_TEXTURE_2D, Namer, dtype
from vkfuse.pte.vulkan import VkTensor

_IMAGE, _SEQUENCE = 4, 3  # ranks
_PLAIN = 10  # arguments; two more are a clamp's
_TILED: Final = (3, 5)  # widths of the square kernels of tiled depthwise shaders
_LEAST_CHANNELS_BY_PRODUCT: Final = 128  # kIm2colMinCOut; a Mali takes this way for any number
_SCRATCH_BYTES: Final = 16 << 20  # kIm2colScratchBudgetBytes


def convolution(call: Call) -> Iterator[str]:
    """Convolution.cpp, conv: two dimensions for a rank of four, else one."""
    source, weight, out = call.tensor(0), call.tensor(1), call.tensor(-1)
    if not (source and weight and out and weight.constant) or len(call.arguments) < _PLAIN:
        return
    if len(source.dims) == _IMAGE and len(weight.dims) == _IMAGE and len(out.dims) == _IMAGE:
        yield from _two_dimensions(call, weight, out)
    elif len(source.dims) == _SEQUENCE and len(weight.dims) == _SEQUENCE:
        yield from _one_dimension(call, source, weight, out)


def _two_dimensions(call: Call, weight: VkTensor, out: VkTensor) -> Iterator[str]:
    """add_conv2d_node."""
    groups, transposed = call.integer(8), call.flag(6)
    if groups is None or transposed is None:
        return
    if not transposed and weight.dims[:2] == (groups, 1):
        yield from _depthwise(call, weight, out)
    elif transposed:
        yield from _direct(call, "conv_transpose2d", weight, out)
    elif weight.dims[2:] == (1, 1):
        storage = float_matrix_storage(*weight.dims[:2])
        yield from float_matrix(weight, storage)
        yield from _bias(weight, "texture2d")
        yield f"conv2d_pw_tiled_{dtype(out)}"
    elif groups == 1 and call.integers(5) == (1, 1) and weight.dims[0] >= _LEAST_CHANNELS_BY_PRODUCT:
        yield from _by_product(weight, out)
    else:
        yield from _direct(call, "conv2d", weight, out)


def _depthwise(call: Call, weight: VkTensor, out: VkTensor) -> Iterator[str]:
    """Conv2dDW.cpp: shaders for kernels of 3 x 3 and 5 x 5, and for strides unlike dilations (`sned`)."""
    stride, dilation = call.integers(3), call.integers(5)
    if stride is None or dilation is None or len(stride) != len(dilation):
        return
    yield from _prepacked("conv2d_dw_prepack_weights", weight)
    yield from _bias(weight, "texture2d")
    unlike = "" if stride == dilation else "_sned"
    tile = next((f"_output_tile_{n}x{n}" for n in _TILED if weight.dims[2:] == (n, n)), "")
    yield f"conv2d_dw{unlike}{tile}{_clamp(call)}_{dtype(out)}"


def _direct(call: Call, operator: str, weight: VkTensor, out: VkTensor) -> Iterator[str]:
    """get_conv2d_shader."""
    yield from _prepacked(f"{operator}_prepack_weights", weight)
    yield from _bias(weight, "texture2d")
    yield f"{operator}{_clamp(call)}_{dtype(out)}"


def _by_product(weight: VkTensor, out: VkTensor) -> Iterator[str]:
    """Conv2dGemm.cpp: the image as a matrix in tiles of rows; left out where a tile is no two-dimensional texture."""
    kind = dtype_suffix(weight.dtype)
    yield f"pack_conv2d_gemm_weight_texture2d_{kind}_{kind}"
    yield f"no_op_{kind}_texture2d"
    yield from _bias(weight, "texture2d")
    depth = weight.dims[2] * weight.dims[3] * (-(-weight.dims[1] // 4) * 4)
    height, width = out.dims[2:]
    row_bytes = width * depth * out.dtype.bytes
    rows = min(max(_SCRATCH_BYTES // row_bytes, 1), height) if row_bytes else 0
    if max(depth // 4, rows * width) <= MAX_TEXTURE_2D:
        yield f"conv2d_im2col_texture2d_{dtype(out)}"
        yield f"conv2d_gemm_texture2d_{dtype(out)}"


def _one_dimension(call: Call, source: VkTensor, weight: VkTensor, out: VkTensor) -> Iterator[str]:
    """Conv: by the layout, which the partitioner chooses by kind: packed by height, or by channels."""
    storage = call.site.storage_suffix(out)
    if source.layout is CHANNELS:
        yield from copied(weight, storage)
        yield from _bias(weight, "texture3d")
        yield f"conv1d{_clamp(call)}_{dtype(out)}"
    elif source.layout is HEIGHT and weight.dims[2] == 1:
        packed = float_matrix_storage(*weight.dims[:2])
        yield from float_matrix(weight, packed)
        yield from copied(call.tensor(2), storage)
        yield f"conv1d_pw{_biased(call)}_{storage}_{packed}_{dtype(out)}"
    elif source.layout is HEIGHT and weight.dims[:2] == (call.integer(8), 1):
        yield from copied(weight, storage)
        yield from copied(call.tensor(2), storage)
        yield f"conv1d_dw{_biased(call)}_{storage}_{dtype(out)}"


def _prepacked(shader: str, weight: VkTensor) -> Iterator[str]:
    """Yield the names of a weight in a texture."""
    kind = dtype_suffix(weight.dtype)
    yield f"{shader}_{kind}_{kind}"
    yield f"no_op_{kind}_texture2d"


def _bias(weight: VkTensor, storage: str) -> Iterator[str]:
    """prepack_biases: in the weight's type; zeros where there is none."""
    if weight.dtype in {VkDataType.FLOAT32, VkDataType.FLOAT16}:
        yield from copied(weight, storage)


def _biased(call: Call) -> str:
    """`_bias` where there is one."""
    return "" if call.value(2) is None else "_bias"


def _clamp(call: Call) -> str:
    """`_clamp` where a lowest and a highest value are given."""
    return "_clamp" if len(call.arguments) > _PLAIN else ""


NAMERS: Final[dict[str, Namer]] = dict.fromkeys(
    ("aten.convolution.default", "conv_with_clamp.default", "et_vk.conv_with_clamp.default"), convolution
)
