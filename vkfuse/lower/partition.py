"""A Vulkan partitioner that delegates only what the target's runtime has, and remembers why the rest stays."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import executorch.backends.vulkan.op_registry as vulkan_registry
import executorch.backends.vulkan.patterns as vulkan_patterns
import executorch.backends.vulkan.utils as vulkan_utils
import torch
from executorch.backends.vulkan._passes.remove_redundant_ops import RemoveRedundantOpsTransform
from executorch.backends.vulkan.partitioner.vulkan_partitioner import (
    VulkanSupportedOperators,
    ops_not_to_decompose,
    parse_compile_options,
)
from executorch.exir.backend.partitioner import DelegationSpec, Partitioner, PartitionResult
from executorch.exir.backend.utils import tag_constant_data
from executorch.exir.dialects._ops import ops as edge_ops
from torch import fx
from torch.export import ExportedProgram
from torch.fx.passes.infra.partitioner import CapabilityBasedPartitioner
from torch.fx.passes.operator_support import OperatorSupportBase

from vkfuse.lower.front import FEEDS_THE_CPU, READ_AS_NUMBER, front_of
from vkfuse.lower.operands import Target, constant_names, numbers_read, operator_name, why_not
from vkfuse.lower.owned import StatePlace, require_delegated, tag_owned_state
from vkfuse.lower.upstream import handle_of
from vkfuse.options import Storage, VulkanOptions
from vkfuse.runtime.codes import Code, Objection
from vkfuse.runtime.operators import OPERATORS, record_of


def _edge_operator(op: Any) -> Any:
    """The edge dialect's operator of torch's."""
    namespace, packet, overload = str(op).split(".")
    return getattr(getattr(getattr(edge_ops.edge, namespace), packet), overload)


def _edge_name(op: Any) -> str:
    """What names of nodes of an edge graph that call `op` begin with."""
    return str(op).replace(".", "_")


# ExecuTorch 1.5 reads its option storage_type_override and ignores it; what fits no texture becomes a buffer. Single rows
# may stay textures: dynamic quantization stores its scales so and has no other shader.
_ROWS_ONLY = (16384, 1, 1)

# Operators that upstream leaves whole: on the CPU they have no kernel.
_WHOLE = frozenset(map(_edge_operator, ops_not_to_decompose))


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A delegated node of an edge graph.

    `handle` is its debug handle, which the operator calls of the delegate refer to; `fused` where a fusion of upstream's
    takes it.
    """

    method: str
    name: str
    operator: str
    handle: int
    fused: bool


class GuardedPartitioner(Partitioner):  # type: ignore[misc]
    """Partition a method for the Vulkan backend for `target`.

    `reasons` tells for each operator left out why, `delegated` are the nodes that were not, `state` says where each written
    buffer is. Buffers of the program that are in `several` methods stay outside of delegates.
    """

    def __init__(
        self, method: str, options: Mapping[str, Any], target: Target, several: Collection[str] = ()
    ) -> None:
        self._method = method
        self._several = several
        self.delegated: list[Node] = []
        self.state: tuple[StatePlace, ...] = tuple[StatePlace, ...]()
        self.delegation_spec = DelegationSpec("VulkanBackend", parse_compile_options(dict(options)))
        self._options = options
        self._target = target
        self.reasons: dict[str, Objection] = {}

    def ops_to_not_decompose(self, ep: ExportedProgram) -> tuple[list[Any], Any]:
        """Operators that Vulkan has as they are, every call of them; without a filter ExecuTorch traces once less.

        Not decomposed, a call on the CPU would have no kernel.
        """
        supported = _Supported(self._method, self._options, self._target, [], constant_names(ep))
        whole = (n.target for n in ep.graph.nodes if n.target in _WHOLE)  # asked again, after the delegates
        left = {target._op for target in whole}  # noqa: SLF001 - the only name of torch's operator
        calls = (n for n in ep.graph.nodes if n.target in ops_not_to_decompose)
        left |= {n.target for n in calls if not supported.takes_whole(n)}
        return [op for op in ops_not_to_decompose if op not in left], None

    def partition(self, exported_program: ExportedProgram) -> PartitionResult:
        """Tag the largest subgraphs that the runtime can load."""
        module = exported_program.graph_module
        fusable = vulkan_patterns.get_all_fusable_subgraphs(module)
        supported = _Supported(
            self._method, self._options, self._target, fusable, constant_names(exported_program)
        )
        partitions = CapabilityBasedPartitioner(
            module, _Chosen(module, supported), allows_single_node_partition=True
        ).propose_partitions()
        tags = {}
        for at, nodes in enumerate(_joined(_at_work(partition.nodes) for partition in partitions)):
            tag = f"tag{at}"
            outside = _second_results([n for n in module.graph.nodes if n in nodes])
            for node in outside:
                supported.reasons.setdefault(operator_name(node), _SECOND_RESULT)
            for node in (n for n in nodes if n not in outside):
                node.meta["delegation_tag"] = tag
                self.delegated.append(self._node(node, fused=node in supported.fusable_nodes))
            tags[tag] = self.delegation_spec
        for name, reason in supported.reasons.items():
            self.reasons.setdefault(name, reason)
        tag_constant_data(exported_program)
        _leave_what_cannot_be_copied(module)
        self.state = tuple(tag_owned_state(exported_program, self._several))
        require_delegated(exported_program)
        return PartitionResult(tagged_exported_program=exported_program, partition_tags=tags)

    def _node(self, node: fx.Node, *, fused: bool) -> Node:
        return Node(
            method=self._method,
            name=node.name,
            operator=operator_name(node),
            handle=handle_of(node),
            fused=fused,
        )


def _leave_what_cannot_be_copied(module: fx.GraphModule) -> None:
    """Hand in a constant that readers inside and outside of a delegate share, where one reads it within a list.

    ExecuTorch copies a shared constant for each reader, but not in lists (duplicate_constant_node_pass.py).
    """
    for node in module.graph.find_nodes(op="placeholder"):
        tag = node.meta.get("delegation_tag")
        shared = tag is not None and any(user.meta.get("delegation_tag") != tag for user in node.users)
        if shared and any(node not in (*user.args, *user.kwargs.values()) for user in node.users):
            del node.meta["delegation_tag"]


def _joined(partitions: Iterable[Iterable[fx.Node]]) -> list[dict[fx.Node, None]]:
    """Partitions, one that reads another's results one with it where no way leads from one to the other outside of them.

    Torch's stay apart where the way led through a view that one has for itself, as an index is, and leaves behind.
    """
    left = [dict.fromkeys(nodes) for nodes in partitions]
    of = {node: nodes for nodes in left for node in nodes}

    def leads_around(one: Mapping[fx.Node, None], other: Mapping[fx.Node, None]) -> bool:
        ways, seen = [*{user for node in one for user in node.users}.difference(one, other)], set[fx.Node]()
        while ways:
            node = ways.pop()
            if node in other:
                return True
            if node not in seen:
                together = of.get(node, {node: None})
                seen.update(together)
                ways += [user for passed in together for user in passed.users]
        return False

    for one in left:
        while one:
            readers = (of[user] for node in one for user in node.users if of.get(user, one) is not one)
            other = next((other for other in readers if not leads_around(one, other)), None)
            if other is None:
                break
            one.update(other)
            of.update(dict.fromkeys(other, one))
            other.clear()
    return [nodes for nodes in left if nodes]


def _at_work(nodes: Collection[fx.Node]) -> list[fx.Node]:
    """What of a partition computes something, or leads there or from there: sizes, views and copies alone do not."""
    left = [node for node in nodes if not record_of(operator_name(node)).idle]
    reached = {*left}
    while left:
        node = left.pop()
        beside = {*node.all_input_nodes, *node.users}.intersection(nodes) - reached
        reached |= beside
        left += beside
    return [node for node in nodes if node in reached]


class _Supported(VulkanSupportedOperators):  # type: ignore[misc]
    """Upstream's support checks, after vkfuse's own."""

    def __init__(
        self,
        method: str,
        options: Mapping[str, Any],
        target: Target,
        fusable: list[Any],
        constants: frozenset[str],
    ) -> None:
        texture_limits = options.get("texture_limits") or (
            vulkan_utils.SMALL_TEXTURE_LIMITS
            if options.get("small_texture_limits")
            else vulkan_utils.DEFAULT_TEXTURE_LIMITS
        )
        super().__init__(
            texture_limits,
            options.get("buffer_limit", vulkan_utils.DEFAULT_BUFFER_LIMIT),
            fusable_subgraphs=fusable,
            operator_blocklist=set(),
        )
        self._target = target
        self._method = method
        self._constants = constants
        self.reasons: dict[str, Objection] = {}

    def is_node_supported(self, submodules: Mapping[str, torch.nn.Module], node: fx.Node) -> bool:
        """Whether `node` may be delegated; the reason why not is kept."""
        del submodules
        self._skipped = ""
        reason = self._target.nodes.get((self._method, node.name))
        if reason is None and node not in self.fusable_nodes:
            reason = why_not(node, self._target, self._constants)
        if reason is None and not self._is_node_supported(node):
            reason = Objection(Code.PARTITIONER, self._skipped or "not supported by ExecuTorch's partitioner")
        if reason is not None and node.op == "call_function":
            self.reasons.setdefault(operator_name(node), reason)
        return reason is None

    def takes_whole(self, node: fx.Node) -> bool:
        """Whether a node of the program, not yet of its edge dialect, may be delegated as it is."""
        edge = _edge_operator(node.target)
        kept = any(m == self._method and n.startswith(_edge_name(node.target)) for m, n in self._target.nodes)
        features = vulkan_registry.get_op_features(edge)
        return (
            not kept
            and why_not(node, self._target, self._constants) is None
            and vulkan_utils.io_dtypes_are_supported(node)
            and features.check_dtypes(node)[0]
            and self.op_node_is_compatible(node, features)[0]
        )

    _skipped = ""

    def log_skip(self, node: fx.Node, reason: str) -> None:
        """Keep upstream's reason instead of logging it."""
        del node
        self._skipped = reason


class _Chosen(OperatorSupportBase):
    """What `supported` says, less what is better computed in front of the delegate."""

    def __init__(self, module: fx.GraphModule, supported: _Supported) -> None:
        self._delegated = {n for n in module.graph.nodes if supported.is_node_supported({}, n)}
        front = {
            n for n in front_of(module.graph.nodes, self._delegated.__contains__) if n.target not in _WHOLE
        }
        numbers = numbers_read(module.graph.nodes) & self._delegated
        for nodes, reason in ((front, FEEDS_THE_CPU), (numbers, READ_AS_NUMBER)):
            for node in nodes:
                supported.reasons.setdefault(operator_name(node), reason)
        self._delegated -= front | numbers

    def is_node_supported(self, submodules: Mapping[str, torch.nn.Module], node: fx.Node) -> bool:
        """Whether `node` is delegated."""
        del submodules
        return node in self._delegated


_SECOND_RESULT = Objection(Code.ARGUMENT_COUNT, "what it copies is a result of the same delegate")


def _second_results(nodes: Sequence[fx.Node]) -> list[fx.Node]:
    """Copies that leave the delegate of `nodes` beside what they copy, which those inside read instead.

    ExecuTorch makes one result of both, for which its caller has two (backends/vulkan/_passes/remove_redundant_ops.py).
    """
    inside, first = set(nodes), dict[fx.Node, fx.Node]()
    for node in nodes:
        source = _copied(node)
        first[node] = node if source is None else first.get(source, source)
    seen, found = set[fx.Node](), list[fx.Node]()
    for node in (n for n in nodes if any(user not in inside for user in n.users)):
        if first[node] in seen:
            found.append(node)
        seen.add(first[node])
    for node in found:
        for user in [user for user in node.users if user in inside]:
            user.replace_input_with(node, first[node])
    return found


def _copied(node: fx.Node) -> fx.Node | None:
    """What the backend lets readers of `node` read in its place, None where it is no mere copy."""
    if node.target not in RemoveRedundantOpsTransform.redundant_ops:
        return None
    source: Any = node.args[int(node.target in RemoveRedundantOpsTransform._src_arg1_ops)]  # noqa: SLF001 - its only name
    return source if _described(source) == _described(node) else None


def _described(node: fx.Node) -> tuple[object, ...]:
    """Type, and sizes as expressions, which compare without a guard."""
    return node.meta["val"].dtype, *map(str, node.meta["val"].shape)


def compile_options(options: VulkanOptions) -> dict[str, Any]:
    """The Vulkan backend's compile options."""
    chosen: dict[str, Any] = {}
    if options.fp16:
        chosen["force_fp16"] = True
    if options.small_textures:
        chosen["small_texture_limits"] = True
    if options.storage is Storage.BUFFER:
        chosen["texture_limits"] = _ROWS_ONLY
    return chosen


def fusions(target: Target) -> set[str]:
    """Upstream's fusions whose result is right where it fires, and can run.

    Tables are placed by vkfuse's own rules; the rotary templates fire on grouped-query attention, which their operator
    cannot do.
    """
    can_run = target.runtime.operators - target.operators.keys()
    return {record.fusion for name in can_run & OPERATORS.keys() for record in OPERATORS[name]}
