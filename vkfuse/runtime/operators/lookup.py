"""Lookups and gathers, and the shader that a fused lookup dispatches."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from vkfuse.glsl.variants import lookup_shader
from vkfuse.multiples import ceil_div
from vkfuse.pte.enums import VkDataType, VkMemoryLayout
from vkfuse.runtime.axes import axis_by_axis, rows_at_indices, selected_along
from vkfuse.runtime.codes import Code, Objection
from vkfuse.runtime.device import LEAST, Device
from vkfuse.runtime.operands import Operands, Tensor
from vkfuse.runtime.packing import copied, four_bit_texels, packed
from vkfuse.runtime.record import Operator, TableArguments
from vkfuse.runtime.rules import group_divides_columns, group_multiple_of_4, multiple, packed_by_width
from vkfuse.runtime.spelling import CHANNELS, FLOATS, WIDTH, by_storage_and_dtype, dtype, storage, stored

FUSED: Final = "et_vk.embedding_q4gsw.default"
PLAIN: Final = "aten.embedding.default"
_MATRIX: Final = 2
_LOCAL_SIZE: Final = 64  # of a copy to a buffer
_MOST: Final = 1 << 31  # texels of a device without limits

_LANES: Final = 4  # channels of a texel


def flat_weight_is_copied_by_bytes(ops: Operands) -> Iterator[Objection]:
    """EmbeddingQ4gsw.cpp copies a flat weight with one invocation a byte (nchw_to_buffer), 64 in a work group.

    api/Context.cpp throws without 8-bit storage; the number of work groups is not checked.
    """
    weight = ops.tensor("weight")
    if ops.flag("is_linear_weight") is not False or weight is None:
        return
    detail = "a flat table; GPUs without storageBuffer8BitAccess (Adreno 6xx) fail at load"
    groups, most = ceil_div(weight.nbytes, _LOCAL_SIZE), ops.device.work_groups
    if groups > most:
        detail += f"; {groups:,} work groups copy it, not every GPU takes more than {most:,}"
    yield Objection(Code.NEEDS_8_BIT_STORAGE, detail)


def half_scales_in_a_buffer(ops: Operands) -> Iterator[Objection]:
    """ops/glsl/embedding_q4gsw.yaml: shaders with half scales; api/Context.cpp throws without 16-bit storage."""
    scales, out = ops.tensor("scales"), ops.out
    if scales and scales.dtype is VkDataType.FLOAT16 and out and out.dtype is not VkDataType.FLOAT16:
        yield Objection(Code.NEEDS_16_BIT_STORAGE, "scales in half precision")


def indices_in_one_row(ops: Operands) -> Iterator[Objection]:
    """ops/glsl/embedding_q4gsw.glsl reads row 0 of an index texture (measured: off by 1.1x the largest)."""
    indices = ops.tensor("indices")
    if indices and not indices.in_buffer and indices.rows > 1:
        yield Objection(Code.INDICES_MORE_THAN_ONE_ROW, f"indices {list(indices.dims)} in a texture")


def indices_stored_as_output(ops: Operands) -> Iterator[Objection]:
    """ops/glsl/embedding_q4gsw.glsl declares indices with the output's storage."""
    indices, out = ops.tensor("indices"), ops.out
    if indices and out and indices.in_buffer != out.in_buffer:
        yield Objection(
            Code.INDICES_STORED_UNLIKE_OUTPUT, f"indices in a {storage(indices)}, output in a {storage(out)}"
        )


def sizes_fit_a_uniform(ops: Operands) -> Iterator[Objection]:
    """EmbeddingQ4gsw.cpp hands its output's sizes over as an ivec4, in buffers too."""
    if ops.out and len(ops.out.dims) > 4:
        yield Objection(Code.MORE_THAN_4_DIMS, f"{list(ops.out.dims)}")


def rows_in_texels(ops: Operands) -> Iterator[Objection]:
    """ops/glsl/embedding_texture.glsl reads four columns whatever a texel of the output is (measured: off by 0.3-0.8)."""
    out, indices = ops.out, ops.tensor("indices")
    packed_by = {tensor.layout for tensor in (out, indices) if tensor} - {
        VkMemoryLayout.DEFAULT_LAYOUT,
        WIDTH,
    }
    if out and not out.in_buffer and packed_by and packed_by != {CHANNELS}:
        yield Objection(Code.ROWS_ACROSS_TEXELS, f"output {next(iter(packed_by)).name.lower()}")


def of_one_texel_of_channels(ops: Operands) -> Iterator[Objection]:
    """ops/glsl/embedding_legacy.glsl multiplies channels by four twice (measured), and Embedding.cpp does not resize it."""
    out, indices = ops.out, ops.tensor("indices")
    if not (out and indices) or indices.in_buffer or indices.layout is not CHANNELS:
        return
    if out.size(-3) > _LANES:
        yield Objection(Code.ROWS_ACROSS_TEXELS, f"{out.size(-3)} channels of {list(out.dims)}")
    if out.dynamic or indices.dynamic:
        yield Objection(Code.NO_RESIZE, "of a dynamic dimension, packed by channels")


def along_from_the_front(ops: Operands) -> Iterator[Objection]:
    """impl/Gather.cpp, add_gather_node: dim_of(input) - dim - 1, whatever the sign (measured: zeros)."""
    dim = ops.integer("dim")
    if dim is not None and dim < 0:
        yield Objection(Code.DIMENSION_FROM_THE_END, f"dimension {dim}")


def one_index_first(ops: Operands) -> Iterator[Objection]:
    """IndexTensor.cpp of 1.5.0: one index, along dimension 0 (`a[:, idx]` has two entries, the first None)."""
    members = ops.value("indices")
    if isinstance(members, tuple) and len(members) != 1:
        yield _not_indexed(f"{len(members)} entries, not one tensor along the first axis")


def one_index(ops: Operands) -> Iterator[Objection]:
    """op_registry.py of 1.5.1, _index_tensor_shapes: one index along any axis."""
    members = ops.value("indices")
    count = len(members) - members.count(None) if isinstance(members, tuple) else 1
    if count != 1:
        yield _not_indexed(f"by {count} tensors")


def _not_indexed(detail: str) -> Objection:
    return Objection(Code.INDEX_LATER_AXIS, detail)


def embedding(ops: Operands) -> Iterator[str]:
    """Embedding.cpp: another shader for indices in textures packed by channels."""
    weight, indices, out = ops.tensor("weight"), ops.tensor("indices"), ops.out
    if not (indices and out) or indices.layout is VkMemoryLayout.DEFAULT_LAYOUT:
        return
    if indices.layout is CHANNELS and not indices.in_buffer:
        yield from copied(weight, "texture2d")
        yield f"embedding_legacy_{dtype(out)}"
    else:
        yield from copied(weight, "buffer")
        yield f"embedding_{stored(out)}"


def embedding_q4gsw(ops: Operands) -> Iterator[str]:
    """EmbeddingQ4gsw.cpp, and QuantizedLinear.cpp for a linear weight, packed once for all its uses."""
    weight, scales, name = ops.tensor("weight"), ops.tensor("scales"), _dispatched(ops)
    if not (weight and name):
        return
    yield from copied(scales, "buffer")
    if ops.flag("is_linear_weight"):
        texels = four_bit_texels(weight)
        yield from packed("pack_q4_linear_weight", weight, texels, ops.device.texels(*texels))
    else:
        yield from copied(weight, "buffer")
    yield name


def _dispatched(ops: Operands) -> str:
    """Name of the shader that computes a fused lookup, nothing where it is not known."""
    weight, scales, out = ops.tensor("weight"), ops.tensor("scales"), ops.out
    linear = ops.flag("is_linear_weight")
    if not (weight and scales and out and len(weight.dims) == _MATRIX) or linear is None:
        return ""
    return lookup_shader(
        float_scales=scales.dtype is not VkDataType.FLOAT16,
        weight=ops.device.texels(*four_bit_texels(weight)) if linear else "",
        output=stored(out),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispatch:
    """A shader that a lookup may dispatch. `when` is empty, or the devices on which it is chosen."""

    name: str
    when: str
    runtimes: tuple[str, ...]


def dispatches(ops: Operands, runtimes: tuple[str, ...]) -> tuple[Dispatch, ...]:
    """The shaders for a fused lookup, two where the device's limit decides; `runtimes` have them.

    Nothing for types that have no shader.
    """
    weight, scales = ops.tensor("weight"), ops.tensor("scales")
    if weight is None or scales is None or ops.out is None or not {scales.dtype, ops.out.dtype} <= {*FLOATS}:
        return ()
    wide, narrow = (_dispatched(replace(ops, device=device)) for device in (Device(texture_2d=_MOST), LEAST))
    texels = max(four_bit_texels(weight)) if wide else 0
    found = {wide: f"maxImageDimension2D >= {texels}", narrow: f"maxImageDimension2D < {texels}"}
    when = found if wide != narrow else {wide: ""}
    return tuple(Dispatch(name=name, when=when[name], runtimes=runtimes) for name in when if name)


def index_first(ops: Operands) -> Iterator[str]:
    """IndexTensor.cpp of 1.5.0: by one tensor, along the first dimension."""
    if ops.out and len(ops.members("indices")) == 1:
        yield f"index_tensor_{stored(ops.out)}"


def index(ops: Operands) -> Iterator[str]:
    """index_tensor_buffer.yaml and index_tensor_texture.yaml of 1.5.1: a buffer's name has the index's storage."""
    indices = [member for member in ops.members("indices") if isinstance(member, Tensor)]
    if ops.out and len(indices) == 1:
        place = f"buffer_{storage(indices[0])}" if ops.out.in_buffer else storage(ops.out)
        yield f"index_tensor_{place}_{dtype(ops.out)}"


def index_select(ops: Operands) -> Iterator[str]:
    """IndexSelect.cpp: of textures; along channels another shader."""
    source, dim, out = ops.tensor("self"), ops.integer("dim"), ops.out
    if source and out and dim is not None and -len(source.dims) <= dim < len(source.dims):
        along_channels = dim % len(source.dims) == len(source.dims) - 3
        yield f"index_select{'_channel' if along_channels else ''}_{dtype(out)}"


INDEXES_FIRST_UNTIL: Final = (1, 5, 0)  # no other dimension than the first
_INDEX: Final = Operator(
    "aten.index.Tensor", "self indices", rules=(one_index,), shaders=index, integers=True, since=(1, 5, 1)
)
OPERATORS: Final = (
    Operator(
        FUSED,
        "weight scales group_size indices is_linear_weight",
        constants="weight scales",
        rules=(
            multiple(
                32, Code.COLUMNS_NOT_MULTIPLE_OF_32, "weight", factor=2
            ),  # EmbeddingQ4gsw.cpp: embed_dim
            flat_weight_is_copied_by_bytes,
            half_scales_in_a_buffer,
            group_multiple_of_4,
            group_divides_columns,
            indices_in_one_row,
            indices_stored_as_output,
            packed_by_width(Code.PACKED_OTHERWISE, "indices"),
            sizes_fit_a_uniform,
        ),
        departs=(
            *(Code.INDICES_MORE_THAN_ONE_ROW, Code.GROUP_NOT_MULTIPLE_OF_4, Code.SCALES_READ_FLAT),
            Code.NO_BOUNDS_CHECK,
        ),
        axes=rows_at_indices,
        shaders=embedding_q4gsw,
        table=TableArguments(
            consumer="gather", scales="scales", group="group_size", bits=4, layout="is_linear_weight"
        ),
        integers=True,
        weighty=True,
    ),
    Operator(
        PLAIN,
        "weight indices",
        constants="weight",
        rules=(rows_in_texels, of_one_texel_of_channels),
        departs=(Code.NO_BOUNDS_CHECK,),
        axes=rows_at_indices,
        shaders=embedding,
        table=TableArguments(consumer="gather"),
        integers=True,
        weighty=True,
    ),
    Operator(
        "aten.index_select.default",
        "self dim index",
        axes=selected_along,
        shaders=index_select,
        integers=True,
        resized=False,
    ),
    _INDEX,
    replace(
        _INDEX, rules=(one_index_first,), shaders=index_first, since=(0, 0, 0), until=INDEXES_FIRST_UNTIL
    ),
    Operator(
        "aten.gather.default",
        "self dim index",
        rules=(along_from_the_front,),
        axes=axis_by_axis("index"),
        shaders=by_storage_and_dtype("gather"),
    ),
)
