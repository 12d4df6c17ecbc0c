"""vkfuse's partitioner in a lowering that somebody else runs: ``to_edge_transform_and_lower(..., partitioner=[...])``.

What vkfuse mends in ExecuTorch is mended only while ExecuTorch works for this partitioner: in its own calls, and in the
Vulkan backend's for delegates whose compile options carry a mark.
"""

import json
from abc import abstractmethod
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from executorch.backends.vulkan.vulkan_preprocess import VulkanBackend
from executorch.exir.backend.compile_spec_schema import CompileSpec
from executorch.exir.backend.partitioner import Partitioner, PartitionResult
from torch.export import ExportedProgram

from vkfuse.lower.embed import serialize_shaders
from vkfuse.lower.operands import Target, constant_names, operator_name
from vkfuse.lower.owned import StatePlace
from vkfuse.lower.partition import GuardedPartitioner, compile_options, fusions
from vkfuse.lower.upstream import adjusted_upstream
from vkfuse.options import VulkanOptions
from vkfuse.runtime.codes import Objection

_MARK = "vkfuse"  # a compile option, which runtimes ignore (runtime/VulkanBackend.cpp, get_graph_config)
_TAG = "delegation_tag"


class GuestPartitioner(Partitioner):  # type: ignore[misc]
    """Partition programs for the Vulkan backend for `target`, after `prepare` has rewritten them.

    A subclass says what `prepare` does and hears what became of each program in `partitioned`.
    """

    def __init__(self, options: VulkanOptions, target: Target) -> None:
        super().__init__()
        self._vulkan, self._target = options, target
        self._mark = CompileSpec(_MARK, json.dumps([sorted(fusions(target)), options.embed_shader]).encode())
        _mend_marked_delegates()

    @abstractmethod
    def prepare(self, exported: ExportedProgram) -> ExportedProgram:
        """The program that is to be lowered, by its first hook."""

    def partitioned(
        self,
        exported: ExportedProgram,
        reasons: Mapping[str, Objection],
        tags: Collection[str],
        state: tuple[StatePlace, ...],
    ) -> None:
        """Hear of a program that nodes of `tags` are delegated of, why operators are not, and where its state is."""

    def shared(self) -> Collection[str]:
        """Buffers that no delegate may keep."""
        return ()

    def transform_for_pre_decomposition(self, exported_program: ExportedProgram) -> ExportedProgram:
        """Rewrite a program before ExecuTorch decomposes it."""
        return self.prepare(exported_program)

    def ops_to_not_decompose(self, ep: ExportedProgram) -> tuple[list[Any], Any]:
        """Operators that Vulkan has as they are."""
        with self._adjusted():
            return self._guarded().ops_to_not_decompose(ep)

    def partition(self, exported_program: ExportedProgram) -> PartitionResult:
        """Tag the largest subgraphs that the runtime can load."""
        guarded = self._guarded()
        with self._adjusted():
            result = guarded.partition(exported_program)
        self.partitioned(exported_program, guarded.reasons, result.partition_tags, guarded.state)
        return result

    def _guarded(self) -> GuardedPartitioner:
        made = GuardedPartitioner("forward", compile_options(self._vulkan), self._target, self.shared())
        made.delegation_spec = made.delegation_spec._replace(
            compile_specs=[*made.delegation_spec.compile_specs, self._mark]
        )
        return made

    @contextmanager
    def _adjusted(self) -> Iterator[None]:
        with adjusted_upstream(fusions(self._target)):
            yield


def border(exported: ExportedProgram, tags: Collection[str]) -> int:
    """How many tensors the delegates of a partitioned program are handed, and hand back; state of their own is neither."""
    constants, state = constant_names(exported), _own_state(exported)
    crossing = set()
    for node in exported.graph.nodes:
        tag = node.meta.get(_TAG)
        if tag in tags:
            outside = (n for n in node.all_input_nodes if n.meta.get(_TAG) != tag and n.name not in constants)
            crossing |= {(f"into {tag}", n) for n in outside if isinstance(n.meta.get("val"), torch.Tensor)}
            readers = [user for user in node.users if user.meta.get(_TAG) != tag]
            if readers and not (node.name in state and all(user.op == "output" for user in readers)):
                crossing.add((f"out of {tag}", node))
    return len(crossing)


def _own_state(exported: ExportedProgram) -> set[str]:
    """Names of the nodes that are the next value of a buffer that a delegate keeps."""
    signature = exported.graph_signature
    kept = {
        signature.inputs_to_buffers.get(node.name)
        for node in exported.graph.find_nodes(op="placeholder")
        if node.meta.get(_TAG) is not None
    }
    return {name for name, buffer in signature.buffers_to_mutate.items() if buffer in kept}


def operators(exported: ExportedProgram, tags: Collection[str] | None) -> dict[str, int]:
    """How often a partitioned program calls each operator: in delegates of `tags`, or outside of all."""
    found: dict[str, int] = {}
    for node in exported.graph.nodes:
        inside = node.meta.get(_TAG) is not None
        if node.op == "call_function" and inside is (tags is not None):
            name = operator_name(node)
            found[name] = found.get(name, 0) + 1
    return found


def _mend_marked_delegates() -> None:
    """Let the Vulkan backend be mended for marked delegates; all others are what they were."""
    VulkanBackend.preprocess = classmethod(_preprocess_marked)


_preprocess = VulkanBackend.preprocess.__func__


def _preprocess_marked(backend: Any, program: ExportedProgram, specs: list[CompileSpec]) -> Any:
    mark = next((spec for spec in specs if spec.key == _MARK), None)
    if mark is None:
        return _preprocess(backend, program, specs)
    kept, embedded = json.loads(mark.value)
    with adjusted_upstream(set(kept), serialize_shaders if embedded else None):
        return _preprocess(backend, program, specs)
