"""Where the operators of a file run: on Vulkan, in another backend, on the CPU."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from vkfuse.pte.model import DelegateCall, KernelCall, Method, PteFile, Tensor
from vkfuse.pte.vulkan import vulkan_graphs


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
