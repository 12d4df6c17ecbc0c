"""Convolutions: pointwise, depthwise, by matrix product, direct and transposed, in two dimensions and in one."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from vkfuse.multiples import round_up
from vkfuse.runtime.axes import convolved
from vkfuse.runtime.codes import Code, Objection
from vkfuse.runtime.operands import Operands, Tensor
from vkfuse.runtime.packing import (
    copied,
    eight_bit_texels,
    fills,
    float_matrix,
    float_matrix_storage,
    in_tiles,
    packed,
)
from vkfuse.runtime.record import Operator, TableArguments
from vkfuse.runtime.spelling import CHANNELS, FLOATS, HEIGHT, dtype, storage, stored, type_name

_IMAGE, _SEQUENCE, _MATRIX = 4, 3, 2  # ranks
_TILED: Final = (3, 5)  # widths of the square kernels of tiled depthwise shaders
_LEAST_CHANNELS_BY_PRODUCT: Final = 128  # kIm2colMinCOut; a Mali takes this way for any number
_LANES: Final = 4  # channels of a texel
_SCRATCH_BYTES: Final = 16 << 20  # kIm2colScratchBudgetBytes


def convolution(ops: Operands) -> Iterator[str]:
    """Convolution.cpp, conv: two dimensions for a rank of four, else one."""
    source, weight, out = ops.tensor("input"), ops.tensor("weight"), ops.out
    if not (source and weight and out and weight.constant) or ops.integer("groups") is None:
        return
    if len(source.dims) == _IMAGE and len(weight.dims) == _IMAGE and len(out.dims) == _IMAGE:
        yield from _two_dimensions(ops, weight, out)
    elif len(source.dims) == _SEQUENCE and len(weight.dims) == _SEQUENCE:
        yield from _one_dimension(ops, source, weight, out)


def arguments_of_its_shader(ops: Operands) -> Iterator[Objection]:
    """Conv1dPW.cpp."""
    kind = _kind(ops)
    if kind and kind.ignores_arguments:
        detail = f"stride {list(kind.stride)} and padding {list(kind.padding)} of a kernel of one"
        yield Objection(Code.CONVOLUTION_ARGUMENTS, detail)


def groups_of_its_shader(ops: Operands) -> Iterator[Objection]:
    """Convolution.cpp, get_conv2d_method; glsl/conv2d.glsl."""
    kind = _kind(ops)
    if kind and kind.mixes_groups:
        yield Objection(Code.CONVOLUTION_GROUPS, f"{kind.groups} groups of {list(kind.weight)}")


def sizes_of_its_shader(ops: Operands) -> Iterator[Objection]:
    """KernelUtils.cpp, make_ivec2_from_list; Convolution.cpp, check_conv2d_params."""
    kind = _kind(ops)
    if kind is None or kind.rank == 1:
        return
    for name, sizes in (("stride", kind.stride), ("padding", kind.padding), ("dilation", kind.dilation)):
        if len(sizes) != kind.rank:
            yield Objection(Code.CONVOLUTION_SIZES, f"{name} is {list(sizes)}")
    if kind.transposed and any(size > 1 for size in kind.dilation):
        yield Objection(Code.CONVOLUTION_SIZES, f"transposed with a dilation of {list(kind.dilation)}")


def padding_of_its_shader(ops: Operands) -> Iterator[Objection]:
    """glsl/conv1d.glsl, conv2d_dw.glsl and conv2d_dw_sned_output_tile.glsl."""
    kind = _kind(ops)
    if kind and kind.loses_padding:
        yield Objection(Code.PADDING_LOST, f"padding {list(kind.padding)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What a shader is chosen by; `dynamic` where a dimension that the kernel moves along is."""

    rank: int
    weight: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    transposed: bool
    dynamic: bool

    @property
    def pointwise(self) -> bool:
        """Whether the kernel is of one element."""
        return all(size == 1 for size in self.weight[2:])

    @property
    def depthwise(self) -> bool:
        """Whether each channel is by itself."""
        return self.weight[:2] == (self.groups, 1)

    @property
    def ignores_arguments(self) -> bool:
        """Whether strides and padding that are given are ignored, by a kernel of one along a sequence (measured)."""
        return self.rank == 1 and self.pointwise and (self.stride, self.padding) != ((1,), (0,))

    @property
    def mixes_groups(self) -> bool:
        """Whether groups are counted in texels of four channels, or not at all (measured)."""
        if self.groups == 1 or (self.rank == 1 and not self.pointwise):
            return False
        if self.rank > 1 and self.depthwise and not self.transposed:
            return False
        whole = not (self.weight[1] % _LANES or self.weight[0] // self.groups % _LANES)
        return self.pointwise or self.transposed or not whole

    @property
    def loses_padding(self) -> bool:
        """Whether the shader finds no end of the input, or loses its place there (measured)."""
        if self.transposed or not any(self.padding):
            return False
        if self.rank == 1:
            return self.dynamic and not self.pointwise and not self.depthwise
        tiled = any(self.weight[2:] == (n, n) for n in _TILED)
        return self.depthwise and (not tiled or (self.dynamic and self.stride != self.dilation))


def _kind(ops: Operands) -> Kind | None:
    """The kind of a convolution of a batch, None where an argument is not known."""
    source, weight, groups = ops.tensor("input"), ops.tensor("weight"), ops.integer("groups")
    stride, padding, dilation = (ops.integers(name) for name in ("stride", "padding", "dilation"))
    if not (source and weight) or groups is None or stride is None or padding is None or dilation is None:
        return None
    rank = len(source.dims) - 2
    return Kind(
        rank=rank,
        weight=weight.dims,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        transposed=bool(ops.flag("transposed")),
        dynamic=any(axis >= 2 for axis in source.dynamic),
    )


def _two_dimensions(ops: Operands, weight: Tensor, out: Tensor) -> Iterator[str]:
    """add_conv2d_node."""
    groups, transposed = ops.integer("groups"), ops.flag("transposed")
    if groups is None or transposed is None:
        return
    if not transposed and weight.dims[:2] == (groups, 1):
        yield from _depthwise(ops, weight, out)
    elif transposed:
        yield from _direct(ops, "conv_transpose2d", weight, out)
    elif weight.dims[2:] == (1, 1):
        yield from float_matrix(weight, float_matrix_storage(ops.device, *weight.dims[:2]), rank=2)
        yield from _bias(weight, weight.dims[0], "texture2d")
        yield f"conv2d_pw_tiled_{dtype(out)}"
    elif groups == 1 and ops.integers("dilation") == (1, 1) and weight.dims[0] >= _LEAST_CHANNELS_BY_PRODUCT:
        yield from _by_product(ops, weight, out)
    else:
        yield from _direct(ops, "conv2d", weight, out)


def _depthwise(ops: Operands, weight: Tensor, out: Tensor) -> Iterator[str]:
    """Conv2dDW.cpp: shaders for kernels of 3 x 3 and 5 x 5, and for strides unlike dilations (`sned`)."""
    stride, dilation = ops.integers("stride"), ops.integers("dilation")
    if stride is None or dilation is None or len(stride) != len(dilation):
        return
    yield from _prepacked("conv2d_dw_prepack_weights", weight)
    yield from _bias(weight, weight.dims[0], "texture2d")
    unlike = "" if stride == dilation else "_sned"
    tile = next((f"_output_tile_{n}x{n}" for n in _TILED if weight.dims[2:] == (n, n)), "")
    yield f"conv2d_dw{unlike}{tile}{_clamp(ops)}_{dtype(out)}"


def _direct(ops: Operands, operator: str, weight: Tensor, out: Tensor) -> Iterator[str]:
    """get_conv2d_shader."""
    yield from _prepacked(f"{operator}_prepack_weights", weight)
    yield from _bias(weight, out.dims[1], "texture2d")
    yield f"{operator}{_clamp(ops)}_{dtype(out)}"


def _by_product(ops: Operands, weight: Tensor, out: Tensor) -> Iterator[str]:
    """Conv2dGemm.cpp: the image as a matrix in tiles of rows; left out where a tile is no two-dimensional texture."""
    kind = type_name(weight.dtype)
    yield f"pack_conv2d_gemm_weight_texture2d_{kind}_{kind}"
    depth = weight.dims[2] * weight.dims[3] * round_up(weight.dims[1], 4)
    yield fills(weight, kind, "texture2d", in_tiles((weight.dims[0], depth)) * weight.dtype.bytes)
    yield from _bias(weight, weight.dims[0], "texture2d")
    height, width = out.dims[2:]
    row_bytes = width * depth * out.dtype.bytes
    rows = min(max(_SCRATCH_BYTES // row_bytes, 1), height) if row_bytes else 0
    if ops.device.texels(depth // 4, rows * width) == "texture2d":
        yield f"conv2d_im2col_texture2d_{dtype(out)}"
        yield f"conv2d_gemm_texture2d_{dtype(out)}"


def _one_dimension(ops: Operands, source: Tensor, weight: Tensor, out: Tensor) -> Iterator[str]:
    """Conv: by the layout, which the partitioner chooses by kind: packed by height, or by channels."""
    place = storage(out)
    if source.layout is CHANNELS:
        yield from copied(weight, place, axis=-3)
        yield from _bias(weight, weight.dims[0], "texture3d", axis=-3)
        yield f"conv1d{_clamp(ops)}_{dtype(out)}"
    elif source.layout is HEIGHT and weight.dims[2] == 1:
        packed = float_matrix_storage(ops.device, *weight.dims[:2])
        yield from float_matrix(weight, packed, rank=2)
        yield from copied(ops.tensor("bias"), place)
        yield f"conv1d_pw{_biased(ops)}_{place}_{packed}_{dtype(out)}"
    elif source.layout is HEIGHT and weight.dims[:2] == (ops.integer("groups"), 1):
        yield from copied(weight, place, axis=-3)
        yield from copied(ops.tensor("bias"), place)
        yield f"conv1d_dw{_biased(ops)}_{place}_{dtype(out)}"


def _prepacked(shader: str, weight: Tensor) -> Iterator[str]:
    """Yield the names of a weight in a texture."""
    kind = type_name(weight.dtype)
    yield f"{shader}_{kind}_{kind}"
    fours = in_tiles((weight.dims[2] * weight.dims[3], *weight.dims[:2]))
    depthwise = round_up(weight.dims[0], 4) * weight.dims[2] * weight.dims[3]
    values = depthwise if weight.dims[1] == 1 else fours
    yield fills(weight, kind, "texture2d", values * weight.dtype.bytes)


def _bias(weight: Tensor, channels: int, into: str, axis: int = -1) -> Iterator[str]:
    """prepack_biases: in the weight's type; zeros where there is none."""
    if weight.dtype in FLOATS:
        yield from copied(replace(weight, dims=(channels,)), into, axis=axis)


def _biased(ops: Operands) -> str:
    """`_bias` where there is one."""
    return "" if ops.value("bias") is None else "_bias"


def _clamp(ops: Operands) -> str:
    """`_clamp` where a lowest and a highest value are given."""
    return "_clamp" if "output_min" in ops.values else ""


def eight_bit(ops: Operands) -> Iterator[str]:
    """QuantizedConvolution.cpp, conv2d_q8csw: the image as a matrix of floats, multiplied by bytes."""
    source, weight, out = ops.tensor("input"), ops.tensor("weight"), ops.out
    if source and weight and out and len(weight.dims) == _MATRIX:
        place = ops.device.texels(*eight_bit_texels(weight))
        yield from packed("pack_q8_linear_weight", weight, eight_bit_texels(weight), place)
        for name in ("scales", "bias"):
            yield from copied(ops.tensor(name), "buffer")
        yield f"im2col_buffer_{stored(source)}"
        yield f"conv2d_q8csw_linear_tiled_{storage(out)}_buffer_{place}_{dtype(out)}"


def one_image(ops: Operands) -> Iterator[Objection]:
    """glsl/conv2d_fp_im2col_block_load.glslh, glsl/conv2d_fp_im2col_block_store.glslh, glsl/q8ta_conv2d*: the first."""
    source = ops.tensor("input")
    if source and source.dims and source.dims[0] != 1:
        yield Objection(Code.CONVOLUTION_BATCHED, f"images {list(source.dims)}")


def outputs_of_groups_in_fours(ops: Operands) -> Iterator[Objection]:
    """QuantizedConvolution.cpp, add_conv2d_q8csw_linear_node."""
    weight, groups = ops.tensor("weight"), ops.integer("groups")
    if weight and weight.dims and groups and groups > 1 and weight.dims[0] // groups % _LANES:
        yield Objection(Code.CONVOLUTION_GROUPS, f"{weight.dims[0]} outputs in {groups} groups")


_RULES: Final = (
    *(arguments_of_its_shader, groups_of_its_shader),
    *(padding_of_its_shader, sizes_of_its_shader),
)
_ARGUMENTS: Final = "input weight bias stride padding dilation transposed output_padding groups"
OPERATORS: Final = (
    Operator(
        "et_vk.conv2d_q8csw.default",
        "input weight scales bias kernel_size stride padding dilation groups",
        constants="weight scales bias",
        rules=(one_image, outputs_of_groups_in_fours),
        departs=(Code.CONVOLUTION_BATCHED,),
        axes=convolved,
        shaders=eight_bit,
        table=TableArguments(consumer="convolve", scales="scales"),
        integers=True,
        resized=False,
        weighty=True,
    ),
    Operator(
        "aten.convolution.default",
        _ARGUMENTS,
        constants="weight bias",
        rules=_RULES,
        axes=convolved,
        shaders=convolution,
        weighty=True,
    ),
    *(
        Operator(
            f"{space}conv_with_clamp.default",
            f"{_ARGUMENTS} output_min output_max",
            constants="weight bias",
            rules=_RULES,
            departs=(Code.NOT_FINITE,),
            axes=convolved,
            shaders=convolution,
        )
        for space in ("", "et_vk.")
    ),
)
