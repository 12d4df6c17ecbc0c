"""The Vulkan delegates of a file, each at its place, and the storage of tensors that leave it open; where operators run."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from vkfuse.pte.enums import VkStorageType
from vkfuse.pte.model import Delegate, DelegateCall, KernelCall, Method, PteFile, Tensor, once_a_file
from vkfuse.pte.place import Place
from vkfuse.pte.values import Extent
from vkfuse.pte.vulkan import VkTensor, VulkanGraph, vulkan_graphs

_STORAGES: Final = (VkStorageType.BUFFER, VkStorageType.TEXTURE_3D, VkStorageType.TEXTURE_2D)


@dataclass(frozen=True, slots=True, kw_only=True)
class VulkanDelegate:
    """A Vulkan delegate: its graph, where it is, its bytes, and the storage of tensors that leave it open."""

    place: Place
    graph: VulkanGraph
    at: Extent
    default_storage: VkStorageType

    def storage(self, tensor: VkTensor) -> VkStorageType:
        """Return the GPU resource of a tensor."""
        return self.default_storage if tensor.storage is VkStorageType.DEFAULT_STORAGE else tensor.storage


@once_a_file
def vulkan_delegates(pte: PteFile) -> Mapping[Place, VulkanDelegate]:
    """Return the Vulkan delegates in the order of the file. FormatError where a blob is malformed."""
    graphs = vulkan_graphs(pte)
    return MappingProxyType(
        {
            place: VulkanDelegate(
                place=place,
                graph=graphs[place],
                at=delegate.processed_at,
                default_storage=_default_storage(delegate),
            )
            for method in pte.methods
            for index, delegate in enumerate(method.delegates)
            if (place := Place(method.name, index)) in graphs
        }
    )


def _default_storage(delegate: Delegate) -> VkStorageType:
    """Return the runtime's default, which an option may override."""
    storage = VkStorageType.TEXTURE_3D  # GraphConfig::GraphConfig
    for spec in delegate.compile_specs:
        if spec.key == "storage_type_override" and len(spec.value) == 4:
            number = int.from_bytes(spec.value, "little")
            storage = next((kind for kind in _STORAGES if kind == number), storage)
    return storage


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Calls by operator; `crossings` counts the tensors that delegate calls take in and hand out."""

    subgraphs: int
    crossings: int
    backends: Mapping[str, int]
    vulkan: Mapping[str, int]
    cpu: Mapping[str, int]


def placement(pte: PteFile, *, method: str | None = None) -> Placement:
    """Count calls over all methods, or of one, each instruction once. FormatError where a Vulkan blob is malformed."""
    methods = [known for known in pte.methods if method in {None, known.name}]
    backends = Counter(delegate.id for known in methods for delegate in known.delegates)
    vulkan = Counter(
        call.name
        for place, graph in vulkan_graphs(pte).items()
        if method in {None, place.method}
        for call in graph.chain
    )
    cpu = Counter(name for known in methods for name in kernel_names(known))
    return Placement(
        subgraphs=backends.total(),
        crossings=sum(_crossings(known) for known in methods),
        backends=_sorted(backends),
        vulkan=_sorted(vulkan),
        cpu=_sorted(cpu),
    )


def kernel_names(method: Method) -> list[str]:
    """Names of the CPU kernels that a method calls, one for each call."""
    calls = (entry for entry in method.instructions if isinstance(entry, KernelCall))
    return [method.operators[call.op_index].full_name for call in calls]


def _crossings(method: Method) -> int:
    """Tensors among the arguments of a method's delegate calls."""
    calls = (entry for entry in method.instructions if isinstance(entry, DelegateCall))
    return sum(isinstance(method.values[index], Tensor) for call in calls for index in call.args)


def _sorted(counts: Counter[str]) -> dict[str, int]:
    """Return the counts, the largest first, then by name."""
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
