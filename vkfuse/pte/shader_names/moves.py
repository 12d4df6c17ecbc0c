"""Operators that move elements: views, permutations, copies, slices, concatenations."""

from collections.abc import Iterator
from typing import Final

from vkfuse.pte.calls import Call
from vkfuse.pte.enums import VkMemoryLayout, VkStorageType
from vkfuse.pte.shader_names.elementwise import viewed
from vkfuse.pte.shader_names.packing import copied
from vkfuse.pte.shader_names.spelling import (
    PACKED_INT8,
    Namer,
    by_dtype,
    by_storage_and_dtype,
    dtype,
    in_buffer,
    members,
    stored,
)
from vkfuse.pte.vulkan import SymInt

_CONCATENATED_AT_ONCE: Final = 3


def view(call: Call) -> Iterator[str]:
    """View.cpp."""
    out = call.tensor(-1)
    if out:
        yield viewed(call.site, out)


def clone(call: Call) -> Iterator[str]:
    """Clone.cpp: textures of one layout, textures of two, between the storages, buffers."""
    source, out = call.tensor(0), call.tensor(-1)
    if not (source and out):
        return
    if {source.layout, out.layout} <= PACKED_INT8:
        yield "q8ta_clone"
        return
    storages = (call.site.storage(source), call.site.storage(out))
    if storages == (VkStorageType.TEXTURE_3D, VkStorageType.BUFFER):
        yield f"clone_image_to_buffer_{dtype(source)}_{dtype(out)}"
    elif storages == (VkStorageType.BUFFER, VkStorageType.TEXTURE_3D):
        yield f"clone_buffer_to_image_{dtype(out)}_{dtype(source)}"
    elif VkStorageType.BUFFER in storages or source.layout is not out.layout:
        if VkMemoryLayout.DEFAULT_LAYOUT not in {source.layout, out.layout}:
            yield viewed(call.site, out)
    elif storages == (VkStorageType.TEXTURE_3D, VkStorageType.TEXTURE_3D):
        yield f"clone_{dtype(out)}"


def squeeze(call: Call) -> Iterator[str]:
    """Squeeze.cpp: a view of buffers; of textures a permutation, or a clone if it drops no inner dimension."""
    source, out, dims = call.tensor(0), call.tensor(-1), call.integers(1)
    if source is None or out is None or dims is None:
        return
    if in_buffer(call.site, source):
        yield viewed(call.site, out)
    elif any(dim and -len(source.dims) <= dim < len(source.dims) and source.dims[dim] == 1 for dim in dims):
        yield f"permute_{stored(call.site, out)}"
    else:
        yield f"clone_{dtype(out)}"


def unsqueeze(call: Call) -> Iterator[str]:
    """Unsqueeze.cpp: a view of buffers, a permutation of textures."""
    source, out = call.tensor(0), call.tensor(-1)
    if source and out:
        buffer = in_buffer(call.site, source)
        yield viewed(call.site, out) if buffer else f"permute_{stored(call.site, out)}"


def cat(call: Call) -> Iterator[str]:
    """Concat.cpp: up to three at once; a counter on the GPU says where the next begin."""
    sources, out = call.members(0), call.tensor(-1)
    if not (sources and out):
        return
    yield "set_zero_int32"
    for start in range(0, len(sources), _CONCATENATED_AT_ONCE):
        count = min(_CONCATENATED_AT_ONCE, len(sources) - start)
        yield f"concat_{count}_{stored(call.site, out)}"
        if start + count < len(sources):
            yield f"update_concat_offset_{count}_int32"


def transferred(operator: str, *numbers: int) -> Namer:
    """Transfer.cpp: another shader where an argument at `numbers` is symbolic."""

    def names(call: Call) -> Iterator[str]:
        out = call.tensor(-1)
        if out:
            symbolic = any(isinstance(call.value(number), SymInt) for number in numbers)
            yield f"{operator}{'_ubo' if symbolic else ''}_{stored(call.site, out)}"

    return names


def split(call: Call) -> Iterator[str]:
    """Split.cpp: one dispatch an output."""
    for out in members(call, -1):
        yield f"split_{stored(call.site, out)}"


def prepack(call: Call) -> Iterator[str]:
    """Staging.cpp, prepack_op: a constant into a tensor."""
    constant, out = call.tensor(0), call.tensor(-1)
    if out is None:
        return
    if out.layout in PACKED_INT8:
        yield from ("nchw_to_int8x4_buffer", "no_op_int32_buffer")
    else:
        yield from copied(constant, call.site.storage_suffix(out), out.dtype)


NAMERS: Final[dict[str, Namer]] = {
    "aten.view_copy.default": view,
    "aten.clone.default": clone,
    "aten.squeeze_copy.dims": squeeze,
    "aten.unsqueeze_copy.default": unsqueeze,
    "aten.cat.default": cat,
    "aten.select.int": transferred("select", 2),
    "aten.select_copy.int": transferred("select", 2),
    "aten.slice_copy.Tensor": transferred("slice", 2, 4),
    "aten.split_with_sizes_copy.default": split,
    "et_vk.prepack.default": prepack,
    "aten.flip.default": by_dtype("flip"),
    "aten.repeat_interleave.self_int": by_dtype("repeat_interleave"),
    "aten.unfold_copy.default": by_dtype("unfold_copy_buffer"),
    **{
        f"aten.{name}.default": by_storage_and_dtype(shader)
        for name, shader in (
            ("permute", "permute"),
            ("permute_copy", "permute"),
            ("expand_copy", "expand"),
            ("repeat", "repeat"),
            ("constant_pad_nd", "pad"),
        )
    },
}
