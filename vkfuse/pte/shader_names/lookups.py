"""Lookups, gathers, and tensors made from numbers."""

from collections.abc import Iterator
from typing import Final

from vkfuse.pte.calls import Call
from vkfuse.pte.enums import VkDataType, VkMemoryLayout
from vkfuse.pte.shader_names.packing import copied, four_bit_matrix_storage, packed
from vkfuse.pte.shader_names.spelling import (
    CHANNELS,
    Namer,
    by_storage_and_dtype,
    dtype,
    in_buffer,
    stored,
)
from vkfuse.pte.values import Bool, Double, Int

_MATRIX: Final = 2


def embedding(call: Call) -> Iterator[str]:
    """Embedding.cpp: another shader for indices in textures packed by channels."""
    weight, indices, out = call.tensor(0), call.tensor(1), call.tensor(-1)
    if not (indices and out) or indices.layout is VkMemoryLayout.DEFAULT_LAYOUT:
        return
    if indices.layout is CHANNELS and not in_buffer(call.site, indices):
        yield from copied(weight, "texture2d")
        yield f"embedding_legacy_{dtype(out)}"
    else:
        yield from copied(weight, "buffer")
        yield f"embedding_{stored(call.site, out)}"


def embedding_q4gsw(call: Call) -> Iterator[str]:
    """EmbeddingQ4gsw.cpp, and QuantizedLinear.cpp for a linear weight, packed once for all its uses."""
    weight, scales, out = call.tensor(0), call.tensor(1), call.tensor(-1)
    linear = call.flag(4)
    if not (weight and scales and out and len(weight.dims) == _MATRIX) or linear is None:
        return
    name = "embedding_q4gsw" + ("_float_scales" if scales.dtype is not VkDataType.FLOAT16 else "")
    yield from copied(scales, "buffer")
    if linear:
        storage = four_bit_matrix_storage(weight)
        yield from packed("pack_q4_linear_weight", storage)
        name += f"_linear_weight_{storage}"
    else:
        yield from copied(weight, "buffer")
    yield f"{name}_{stored(call.site, out)}"


def index(call: Call) -> Iterator[str]:
    """IndexTensor.cpp: by one tensor, along the first dimension."""
    out = call.tensor(-1)
    if out and len(call.members(1) or ()) == 1:
        yield f"index_tensor_{stored(call.site, out)}"


def index_select(call: Call) -> Iterator[str]:
    """IndexSelect.cpp: of textures; along channels another shader."""
    source, dim, out = call.tensor(0), call.integer(1), call.tensor(-1)
    if source and out and dim is not None and -len(source.dims) <= dim < len(source.dims):
        along_channels = dim % len(source.dims) == len(source.dims) - 3
        yield f"index_select{'_channel' if along_channels else ''}_{dtype(out)}"


def scalar_tensor(call: Call) -> Iterator[str]:
    """ScalarTensor.cpp: type, storage, and the number's type."""
    out, number = call.tensor(-1), _NUMBERS.get(type(call.value(0)))
    if out and number:
        yield f"scalar_tensor_{dtype(out)}_{call.site.storage_suffix(out)}_{number}"


_NUMBERS: Final = {Int: "int32", Double: "float", Bool: "uint8"}  # ComputeGraph::dtype_of

NAMERS: Final[dict[str, Namer]] = {
    "aten.embedding.default": embedding,
    "et_vk.embedding_q4gsw.default": embedding_q4gsw,
    "aten.index_select.default": index_select,
    "aten.index.Tensor": index,
    "aten.gather.default": by_storage_and_dtype("gather"),
    "aten.arange.start_step": by_storage_and_dtype("arange"),
    "aten.scalar_tensor.default": scalar_tensor,
    **{
        f"aten.{name}.default": by_storage_and_dtype("full")
        for name in ("full", "full_like", "zeros", "zeros_like", "ones", "ones_like")
    },
}
