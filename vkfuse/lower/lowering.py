"""Lower programs with ExecuTorch and write one .pte."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import IO, Any, Final

import executorch.kernels.quantized  # noqa: F401 - registers the out variants of quantized_decomposed
import torch
from executorch.exir import EdgeCompileConfig, ExecutorchBackendConfig, to_edge_transform_and_lower
from executorch.exir.passes import MemoryPlanningPass
from executorch.exir.passes.init_mutable_pass import InitializedMutableBufferPass
from torch.export import ExportedProgram
from torch.utils._pytree import TreeSpec, treespec_dumps

from vkfuse.errors import LoweringError, spelled
from vkfuse.lower.callable import check_has_kernels, dynamic_inputs
from vkfuse.lower.embed import serialize_shaders
from vkfuse.lower.numbers import NUMBERS_HINT, number_only_a_run_knows
from vkfuse.lower.operands import Target
from vkfuse.lower.owned import StateOutsideError, StatePlace
from vkfuse.lower.partition import GuardedPartitioner, Node, compile_options, fusions
from vkfuse.lower.sizes import in_known_arithmetic
from vkfuse.lower.state import buffers_of_several, initialized, shared_state
from vkfuse.lower.upstream import adjusted_upstream, functional_programs
from vkfuse.options import VulkanOptions
from vkfuse.program.guards import without_pending_sizes
from vkfuse.program.parts import with_parts
from vkfuse.pte.model import DelegateCall, PteFile
from vkfuse.pte.place import Place
from vkfuse.runtime.codes import Code, Objection
from vkfuse.runtime.device import COMMON

NO_DATA: Final[Mapping[str, bytes]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Lowered:
    """An ExecuTorch program that is not written yet, and for each method why an operator on the CPU is there."""

    manager: Any
    reasons: Mapping[str, Mapping[str, Objection]]
    delegated: tuple[Node, ...] = ()
    state: Mapping[str, tuple[StatePlace, ...]] = field(default_factory=dict)

    def handles(self, pte: PteFile, where: Place, node_id: int) -> tuple[int, ...]:
        """Debug handles of an operator call in the file that this wrote: of the nodes that it came from."""
        instructions = next(m for m in pte.methods if m.name == where.method).instructions
        calls = [
            at
            for at, instruction in enumerate(instructions)
            if isinstance(instruction, DelegateCall) and instruction.delegate_index == where.delegate
        ]
        maps = (
            self.manager.delegate_map.get(where.method, {}).get(at, {}).get("delegate_map", {})
            for at in calls
        )
        return tuple(handle for known in maps for handle in known.get(node_id, ()))

    def write(self, stream: IO[bytes]) -> None:
        """Write the .pte."""
        self.manager.write_to_file(stream)


class NotLoweredError(LoweringError):
    """ExecuTorch raised; `delegated` had been chosen for delegates by then."""

    def __init__(self, error: LoweringError, delegated: tuple[Node, ...]) -> None:
        super().__init__(error.message, hint=error.hint)
        self.delegated = delegated


def lower(
    methods: Mapping[str, ExportedProgram],
    target: Target,
    options: VulkanOptions,
    named: Mapping[str, bytes] = NO_DATA,
) -> Lowered:
    """Lower all methods for `target`; equal constants are stored once, and `named` data beside them.

    Raises NotLoweredError where ExecuTorch raises anything, StateOutsideError where a write in place stays outside.
    """
    state = shared_state(methods)
    several = buffers_of_several(methods)
    partitioners = {
        name: GuardedPartitioner(name, compile_options(options), target, several) for name in methods
    }
    try:
        shaders = serialize_shaders if options.embed_shader else None
        with adjusted_upstream(fusions(target), shaders), functional_programs():
            memory = MemoryPlanningPass(share_mutable_buffers=bool(state))
            manager = _lower(methods, partitioners, memory, named)
    except StateOutsideError:
        raise
    except LoweringError as error:
        _check_sizes(methods, partitioners)
        raise NotLoweredError(error, _delegated(partitioners)) from error
    reasons = {name: made.reasons for name, made in partitioners.items()}
    places = {name: made.state for name, made in partitioners.items()}
    return Lowered(manager=manager, reasons=reasons, delegated=_delegated(partitioners), state=places)


def _check_sizes(
    methods: Mapping[str, ExportedProgram], partitioners: Mapping[str, GuardedPartitioner]
) -> None:
    """Raise LoweringError for an operator of Vulkan's alone that is too large for the delegate at its greatest sizes."""
    for method, made in partitioners.items():
        for operator, why in made.reasons.items():
            if operator.startswith("et_vk.") and why.code is Code.BEYOND_LARGEST_BUFFER:
                inputs = ", ".join(dynamic_inputs(methods[method]))
                raise LoweringError(
                    f"{operator} of {method} is of up to {why.detail}; a delegate's tensors hold {COMMON.buffer:,}",
                    hint=f"export with smaller bounds, Dim('n', max=512), for {inputs}",
                )


def _delegated(partitioners: Mapping[str, GuardedPartitioner]) -> tuple[Node, ...]:
    return tuple(node for partitioner in partitioners.values() for node in partitioner.delegated)


def lower_stock(methods: Mapping[str, ExportedProgram], options: VulkanOptions) -> Lowered:
    """Lower each method as the installed ExecuTorch does by itself.

    Raises LoweringError where ExecuTorch does.
    """
    from executorch.backends.vulkan.partitioner.vulkan_partitioner import VulkanPartitioner  # noqa: PLC0415 - baseline only

    partitioners = {name: VulkanPartitioner(compile_options(options)) for name in methods}
    # ExecuTorch takes constants that it moves to a delegate out of the program's own mapping.
    methods = {name: with_parts(of, constants=dict(of.constants)) for name, of in methods.items()}
    return Lowered(manager=_lower(methods, partitioners, MemoryPlanningPass()), reasons={})


def _lower(
    methods: Mapping[str, ExportedProgram],
    partitioners: Mapping[str, Any],
    memory: Any,
    named: Mapping[str, bytes] = NO_DATA,
) -> Any:
    try:
        # Tracing writes to buffers, which autograd forbids where a gradient is needed.
        with torch.no_grad(), without_pending_sizes(methods.values()):
            edge = to_edge_transform_and_lower(
                {name: nested_in_tuples(exported) for name, exported in methods.items()},
                partitioner={name: [made] for name, made in partitioners.items()},
                compile_config=EdgeCompileConfig(_check_ir_validity=False),
            )
            for name in methods:
                in_known_arithmetic(edge.exported_program(name).graph)
            for key, data in named.items():
                edge._named_data_store.add_named_data(key, data)  # noqa: SLF001 - no other way in
            lowered = {
                name: edge.exported_program(name) for name in methods
            }  # whose placeholders have other names
            passes = [InitializedMutableBufferPass(list(initialized(lowered)))]
            return edge.to_executorch(ExecutorchBackendConfig(passes=passes, memory_planning_pass=memory))
    except StateOutsideError:
        raise
    except Exception as error:  # upstream asserts and raises anything
        check_has_kernels(methods, str(error))
        unknown = number_only_a_run_knows(methods)
        raise LoweringError(
            f"ExecuTorch could not lower the program{unknown}: {spelled(error)}",
            hint=NUMBERS_HINT if unknown else "run again with -v for upstream's own messages",
        ) from error


_NAMED: Final = (tuple, list, dict, type(None))


def nested_in_tuples(exported: ExportedProgram) -> ExportedProgram:
    """The program with tuples for the classes that torch has no name for in a file: named tuples, results of ``topk``.

    ExecuTorch writes the nesting into the file (exir/emit/_emitter.py, create_container_str); no runtime reads it.
    """
    whole, *parts = exported.module_call_graph
    if whole.signature is None or (
        _has_names(whole.signature.in_spec) and _has_names(whole.signature.out_spec)
    ):
        return exported
    signature = replace(
        whole.signature,
        in_spec=_in_tuples(whole.signature.in_spec),
        out_spec=_in_tuples(whole.signature.out_spec),
    )
    return with_parts(exported, module_call_graph=[replace(whole, signature=signature), *parts])


def _has_names(spec: TreeSpec) -> bool:
    try:
        treespec_dumps(spec)
    except NotImplementedError:
        return False
    return True


def _in_tuples(spec: TreeSpec) -> TreeSpec:
    if spec.is_leaf():
        return spec
    children: list[Any] = [_in_tuples(child) for child in spec.children()]
    if spec.type in _NAMED:
        return TreeSpec(spec.type, spec._context, children)  # noqa: SLF001 - its constructor's argument
    return TreeSpec(tuple, None, children)
