"""How names are put together, and facts of arguments that names depend on."""

from collections.abc import Callable, Iterator
from typing import Final

from vkfuse.pte.calls import Call, Site, dtype_suffix
from vkfuse.pte.enums import VkDataType, VkMemoryLayout, VkStorageType
from vkfuse.pte.vulkan import VkTensor

Namer = Callable[[Call], Iterator[str]]

MAX_TEXTURE_2D: Final = 16384  # maxImageDimension2D of common devices; a smaller limit asks for a buffer
FLOATS: Final = (VkDataType.FLOAT16, VkDataType.FLOAT32)
PACKED_INT8: Final = frozenset(layout for layout in VkMemoryLayout if layout.name.startswith("PACKED_INT8"))
WIDTH: Final = VkMemoryLayout.TENSOR_WIDTH_PACKED
HEIGHT: Final = VkMemoryLayout.TENSOR_HEIGHT_PACKED
CHANNELS: Final = VkMemoryLayout.TENSOR_CHANNELS_PACKED


def dtype(tensor: VkTensor) -> str:
    """Element type; four 8-bit integers packed into one word are spelled as the word (kInt8x4)."""
    return "int32" if tensor.layout in PACKED_INT8 else dtype_suffix(tensor.dtype)


def in_buffer(site: Site, tensor: VkTensor) -> bool:
    """Whether the tensor is stored in a buffer."""
    return site.storage(tensor) is VkStorageType.BUFFER


def stored(site: Site, tensor: VkTensor) -> str:
    """`texture3d_float`."""
    return f"{site.storage_suffix(tensor)}_{dtype(tensor)}"


def output(call: Call) -> VkTensor | None:
    """Return the output, the first where there are several."""
    members = call.members(-1)
    if members is None:
        return call.tensor(-1)
    value = call.site.graph.values[members[0]] if members else None
    return value if isinstance(value, VkTensor) else None


def members(call: Call, position: int) -> tuple[VkTensor, ...]:
    """Return the tensors of an argument that is a list of them."""
    values = (call.site.graph.values[index] for index in call.members(position) or ())
    return tuple(value for value in values if isinstance(value, VkTensor))


def size(tensor: VkTensor, axis: int) -> int:
    """Size along an axis counted from the end, 1 beyond the first."""
    return tensor.dims[axis] if -axis <= len(tensor.dims) else 1


def by_storage_and_dtype(operator: str) -> Namer:
    """Name after storage and type of the output: the usual form."""
    return _by_output(lambda site, out: f"{operator}_{stored(site, out)}")


def by_dtype_and_storage(operator: str) -> Namer:
    """Name after type and storage of the output."""
    return _by_output(lambda site, out: f"{operator}_{dtype(out)}_{site.storage_suffix(out)}")


def by_dtype(operator: str) -> Namer:
    """Name after the type of the output, for operators of textures."""
    return _by_output(lambda _site, out: f"{operator}_{dtype(out)}")


def _by_output(spell: Callable[[Site, VkTensor], str]) -> Namer:
    """One name, of the output."""

    def names(call: Call) -> Iterator[str]:
        out = output(call)
        if out:
            yield spell(call.site, out)

    return names
