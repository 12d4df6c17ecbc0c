"""The element types, storage and packing that each operator of a file works on."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Literal

from vkfuse.pte.delegates import VulkanDelegate, vulkan_delegates
from vkfuse.pte.enums import VkMemoryLayout, VkStorageType
from vkfuse.pte.model import KernelCall, Method, PteFile, Tensor
from vkfuse.pte.vulkan import OperatorCall, VkTensor
from vkfuse.runtime.operators.moves import PREPACK

Where = tuple[Literal["vulkan", "cpu"], str]


def layouts(pte: PteFile) -> Mapping[Where, Counter[str]]:
    """Return how often each operator works on what: `float32 texture_3d width, of uint8 float32`."""
    found: dict[Where, Counter[str]] = {}
    for delegate in vulkan_delegates(pte).values():
        for call in delegate.graph.chain:
            if call.name != PREPACK:
                found.setdefault(("vulkan", call.name), Counter())[_call(delegate, call)] += 1
    for method in pte.methods:
        for name, described in _kernels(method):
            found.setdefault(("cpu", name), Counter())[described] += 1
    return found


def _call(delegate: VulkanDelegate, call: OperatorCall) -> str:
    """Describe the output of a call, and the types of its constants."""
    values = [delegate.graph.values[index] for index in call.args]
    tensors = [value for value in values if isinstance(value, VkTensor)]
    outputs = [_tensor(delegate, tensor) for tensor in tensors[-1:] if not tensor.constant]
    types = " ".join(dict.fromkeys(tensor.dtype.label for tensor in tensors if tensor.constant))
    return ", of ".join(filter(None, (*outputs, types)))


def _tensor(delegate: VulkanDelegate, tensor: VkTensor) -> str:
    """`float32 texture_3d width`, `float32 buffer`."""
    storage, layout = delegate.storage(tensor), tensor.layout
    packed = "" if layout is VkMemoryLayout.DEFAULT_LAYOUT else layout.name.removeprefix("TENSOR_")
    axis = "" if storage is VkStorageType.BUFFER else packed.removesuffix("_PACKED").lower()
    return " ".join(filter(None, (tensor.dtype.label, storage.name.lower(), axis)))


def _kernels(method: Method) -> Iterator[tuple[str, str]]:
    """Yield each CPU kernel with the type of its output, and its order of dimensions where that is not the default."""
    for call in method.instructions:
        if isinstance(call, KernelCall):
            tensors = [v for index in call.args if isinstance(v := method.values[index], Tensor)]
            yield method.operators[call.op_index].full_name, "".join(map(_plain, tensors[-1:]))


def _plain(tensor: Tensor) -> str:
    order = tensor.dim_order
    ordered = "" if order == tuple(range(len(order))) else f" in order {list(order)}"
    return f"{tensor.scalar_type.label}{ordered}"
