"""Operators that move or convert elements: views, permutations, copies, slices, concatenations."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from vkfuse.pte.enums import VkMemoryLayout, VkStorageType
from vkfuse.runtime.axes import (
    axis_by_axis,
    counted,
    elementwise,
    expanded,
    joined,
    parted,
    permuted,
    repeated,
    size_of,
    sliced,
    viewed,
    with_another,
    without,
)
from vkfuse.runtime.codes import Code, Objection
from vkfuse.runtime.operands import Operands, Symbol, Tensor
from vkfuse.runtime.packing import copied, fills, on_device, packed_axis
from vkfuse.runtime.record import Namer, Operator
from vkfuse.runtime.spelling import (
    FLOATS,
    PACKED_INT8,
    by_dtype,
    by_storage_and_dtype,
    dtype,
    storage,
    stored,
)

PREPACK: Final = "et_vk.prepack.default"
COPY: Final = "aten.clone.default"
VIEW: Final = "aten.view_copy.default"
SLICE: Final = "aten.slice_copy.Tensor"
SELECT: Final = "aten.select_copy.int"
UNSQUEEZE: Final = "aten.unsqueeze_copy.default"
PAD: Final = "aten.constant_pad_nd.default"
_CONCATENATED_AT_ONCE: Final = 3


def keeps_the_order(ops: Operands) -> Iterator[Objection]:
    """A copy into another order of dimensions, or out of it, is none in a delegate."""
    if len({tensor.order for tensor in ops.tensors()}) > 1:
        yield Objection(Code.DIM_ORDER_IGNORED, "a copy that changes the order of dimensions")


def joins_one_type(ops: Operands) -> Iterator[Objection]:
    """Concat.cpp: what it joins is read as the output's type."""
    parts = (*ops.members("tensors"), ops.out)
    types = {part.dtype.label for part in parts if isinstance(part, Tensor)}
    if len(types) > 1:
        yield Objection(Code.TYPES_NOT_PROMOTED, ", ".join(sorted(types)))


def follows_no_sizes(ops: Operands) -> Iterator[Objection]:
    """Expand.cpp up to 1.2 has no resize function; an expansion to the size that the tensor has is removed before."""
    source, out = ops.tensor("self"), ops.out
    if not (source and out) or (source.dims, source.dynamic) == (out.dims, out.dynamic):
        return
    if source.dynamic or out.dynamic:
        yield Objection(Code.NO_RESIZE, "of a dynamic dimension")


def resized_by_its_view(ops: Operands) -> Iterator[Objection]:
    """Squeeze.cpp: a texture keeps its largest size without its first dimension, a buffer by a negative one its rank."""
    source, dims = ops.tensor("self"), ops.integers("dim")
    if source is None or dims is None or not source.dynamic:
        return
    gone = (
        any(dim < 0 for dim in dims)
        if source.in_buffer
        else 0 in {dim % max(1, len(source.dims)) for dim in dims}
    )
    if gone:
        yield Objection(Code.NO_RESIZE, f"without dimensions {list(dims)}")


def counted_from_the_front(ops: Operands) -> Iterator[Objection]:
    """Permute.cpp, resize_permute_node: sizes are read at the dimensions as they are given (measured: it throws)."""
    source, dims = ops.tensor("self"), ops.integers("dims")
    if source and source.dynamic and dims and min(dims) < 0:
        yield Objection(Code.NO_RESIZE, f"by dimensions {list(dims)}")


def divides_when_loaded(ops: Operands) -> Iterator[Objection]:
    """sym_floordiv in SymIntOps.cpp: sizes that a call gives are zero until it does (measured: the process ends)."""
    if isinstance(ops.value("other"), Symbol):
        yield Objection(Code.DIVISOR_NOT_KNOWN, "by a size")


def view(ops: Operands) -> Iterator[str]:
    """View.cpp."""
    if ops.out:
        yield _viewed(ops.out)


def to_copy(ops: Operands) -> Iterator[str]:
    """ToCopy.cpp: equal types and float <-> half are blits, which need no shader."""
    source, out = ops.tensor("self"), ops.out
    if source and out and source.dtype is not out.dtype and not {source.dtype, out.dtype} <= set(FLOATS):
        yield _converted(source, out)


def to_dim_order_copy(ops: Operands) -> Iterator[str]:
    """View.cpp: a view, or a conversion where the types differ."""
    source, out = ops.tensor("self"), ops.out
    if source and out:
        yield _viewed(out) if source.dtype is out.dtype else _converted(source, out)


def _viewed(out: Tensor) -> str:
    """add_view_copy_node in View.cpp: the output's type."""
    return f"view_{_resource(out)}_{dtype(out)}"


def _converted(source: Tensor, out: Tensor) -> str:
    """add_view_copy_convert_node in View.cpp."""
    return f"view_convert_{_resource(out)}_{dtype(source)}_{dtype(out)}"


def _resource(tensor: Tensor) -> str:
    """`buffer` or `texture`, as View.cpp spells it."""
    return "buffer" if tensor.in_buffer else "texture"


def clone(ops: Operands) -> Iterator[str]:
    """Clone.cpp: textures of one layout, textures of two, between the storages, buffers."""
    source, out = ops.tensor("self"), ops.out
    if not (source and out):
        return
    if {source.layout, out.layout} <= PACKED_INT8:
        yield "q8ta_clone"
        return
    storages = (source.storage, out.storage)
    if storages == (VkStorageType.TEXTURE_3D, VkStorageType.BUFFER):
        yield f"clone_image_to_buffer_{dtype(source)}_{dtype(out)}"
    elif storages == (VkStorageType.BUFFER, VkStorageType.TEXTURE_3D):
        yield f"clone_buffer_to_image_{dtype(out)}_{dtype(source)}"
    elif VkStorageType.BUFFER in storages or source.layout is not out.layout:
        if VkMemoryLayout.DEFAULT_LAYOUT not in {source.layout, out.layout}:
            yield _viewed(out)
    elif storages == (VkStorageType.TEXTURE_3D, VkStorageType.TEXTURE_3D):
        yield f"clone_{dtype(out)}"


def squeeze(ops: Operands) -> Iterator[str]:
    """Squeeze.cpp: a view of buffers; of textures a permutation, or a clone if it drops no inner dimension."""
    source, out, dims = ops.tensor("self"), ops.out, ops.integers("dim")
    if source is None or out is None or dims is None:
        return
    if source.in_buffer:
        yield _viewed(out)
    elif any(dim and -len(source.dims) <= dim < len(source.dims) and source.dims[dim] == 1 for dim in dims):
        yield f"permute_{stored(out)}"
    else:
        yield f"clone_{dtype(out)}"


def unsqueeze(ops: Operands) -> Iterator[str]:
    """Unsqueeze.cpp: a view of buffers, a permutation of textures."""
    source, out = ops.tensor("self"), ops.out
    if source and out:
        yield _viewed(out) if source.in_buffer else f"permute_{stored(out)}"


def cat(ops: Operands) -> Iterator[str]:
    """Concat.cpp: up to three at once; a counter on the GPU says where the next begin."""
    sources, out = ops.members("tensors"), ops.out
    if not (sources and out):
        return
    yield "set_zero_int32"
    for start in range(0, len(sources), _CONCATENATED_AT_ONCE):
        count = min(_CONCATENATED_AT_ONCE, len(sources) - start)
        yield f"concat_{count}_{stored(out)}"
        if start + count < len(sources):
            yield f"update_concat_offset_{count}_int32"


def transferred(shader: str, *numbers: str) -> Namer:
    """Transfer.cpp: another shader where one of these arguments is symbolic."""

    def names(ops: Operands) -> Iterator[str]:
        if ops.out:
            symbolic = any(isinstance(ops.value(number), Symbol) for number in numbers)
            yield f"{shader}{'_ubo' if symbolic else ''}_{stored(ops.out)}"

    return names


def split(ops: Operands) -> Iterator[str]:
    """Split.cpp: one dispatch an output."""
    if isinstance(ops.output, tuple):
        yield from (f"split_{stored(out)}" for out in ops.outs)


def prepack(ops: Operands) -> Iterator[str]:
    """Staging.cpp, prepack_op: a constant into a tensor."""
    constant, out = ops.tensor("constant"), ops.out
    if constant is None or out is None:
        return
    if out.layout in PACKED_INT8:
        yield "nchw_to_int8x4_buffer"
        yield fills(constant, "int32", "buffer", on_device(constant.dims, 1, "buffer"))
    else:
        yield from copied(constant, storage(out), out.dtype, packed_axis(out))


_SINCE, _UNTIL = (1, 3, 0), (1, 2, 99)  # where Expand.cpp and Repeat.cpp got resize functions
_EXPAND: Final = Operator(
    "aten.expand_copy.default",
    "self size",
    axes=expanded,
    shaders=by_storage_and_dtype("expand"),
    since=_SINCE,
)
_REPEAT: Final = Operator(
    "aten.repeat.default",
    "self repeats",
    axes=repeated,
    shaders=by_storage_and_dtype("repeat"),
    since=_SINCE,
)
OPERATORS: Final = (
    Operator(VIEW, "self size", axes=viewed, shaders=view, integers=True, idle=True),
    Operator(
        "aten.squeeze_copy.dims",
        "self dim",
        rules=(resized_by_its_view,),
        axes=without(),
        shaders=squeeze,
        integers=True,
        idle=True,
    ),
    Operator(UNSQUEEZE, "self dim", axes=with_another, shaders=unsqueeze, integers=True, idle=True),
    Operator(COPY, "self", axes=elementwise, shaders=clone, idle=True, replaced=True),
    Operator("aten._to_copy.default", "self", axes=elementwise, shaders=to_copy),
    Operator(
        "dim_order_ops._to_dim_order_copy.default",
        "self",
        rules=(keeps_the_order,),
        axes=elementwise,
        shaders=to_dim_order_copy,
        replaced=True,
    ),
    Operator(
        "dim_order_ops._clone_dim_order.default", "self", rules=(keeps_the_order,), idle=True, replaced=True
    ),
    *(
        Operator(f"aten.{name}.default", idle=True, replaced=True)
        for name in ("t_copy", "alias_copy", "detach_copy", "lift_fresh_copy", "copy")
    ),
    Operator("aten.cat.default", "tensors dim", rules=(joins_one_type,), axes=joined, shaders=cat),
    *(
        Operator(name, "self dim index", axes=without(), shaders=transferred("select", "index"))
        for name in ("aten.select.int", SELECT)
    ),
    Operator(SLICE, "self dim start end step", axes=sliced, shaders=transferred("slice", "start", "step")),
    Operator(
        "aten.split_with_sizes_copy.default",
        "self split_sizes dim",
        axes=parted,
        shaders=split,
        resized=False,
    ),
    *(
        Operator(
            name,
            "self dims",
            rules=(counted_from_the_front,),
            axes=permuted,
            shaders=by_storage_and_dtype("permute"),
        )
        for name in ("aten.permute.default", "aten.permute_copy.default")
    ),
    _EXPAND,
    replace(_EXPAND, rules=(follows_no_sizes,), since=(0, 0, 0), until=_UNTIL),
    _REPEAT,
    replace(_REPEAT, resized=False, since=(0, 0, 0), until=_UNTIL),
    Operator(
        "aten.repeat_interleave.self_int",
        "self",
        axes=axis_by_axis("self"),
        shaders=by_dtype("repeat_interleave"),
    ),
    Operator(PAD, "self", axes=axis_by_axis("self"), shaders=by_storage_and_dtype("pad")),
    Operator("aten.flip.default", "self", axes=axis_by_axis("self"), shaders=by_dtype("flip")),
    Operator("aten.unfold_copy.default", "self", shaders=by_dtype("unfold_copy_buffer")),
    Operator(PREPACK, "constant", constants="constant", axes=elementwise, shaders=prepack),
    Operator("getitem", integers=True, idle=True, replaced=True),
    Operator("aten.sym_size.int", integers=True, idle=True, replaced=True),
    Operator("sym_size.int", "self dim", axes=size_of, integers=True),
    *(Operator(name, "self other", axes=counted) for name in ("add", "sub", "mul")),
    Operator("floordiv", "self other", axes=counted, rules=(divides_when_loaded,)),
    Operator("et_vk.select_as_symint.default", "self dim index", fusion="select_as_symint"),
)
