"""Every patch of ExecuTorch 1.5: what its Vulkan lowering gets wrong in itself, and what vkfuse needs otherwise."""

import copy
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from importlib.metadata import version
from typing import Any, Final
from unittest import mock

import executorch.backends.vulkan.op_registry as vulkan_registry
import executorch.backends.vulkan.patterns as vulkan_patterns
import executorch.backends.vulkan.utils as vulkan_utils
import torch
from executorch.backends.transforms.fuse_view_copy import FuseViewCopyTransform
from executorch.backends.transforms.view_copy_to_squeeze_unsqueeze import ViewCopyToSqueezeUnsqueezePass
from executorch.backends.vulkan import vulkan_preprocess
from executorch.backends.vulkan._passes.remove_redundant_ops import RemoveRedundantOpsTransform
from executorch.backends.vulkan._passes.squeeze_unsqueeze_inputs import SqueezeUnsqueezeInputs
from executorch.backends.vulkan.partitioner.vulkan_partitioner import ops_not_to_decompose
from executorch.backends.vulkan.patterns.pattern_registry import PatternEntry
from executorch.backends.vulkan.serialization import vulkan_graph_serialize as serializer
from executorch.backends.vulkan.serialization.vulkan_graph_builder import VkGraphBuilder
from executorch.backends.vulkan.serialization.vulkan_graph_schema import (
    Bool,
    Double,
    Int,
    OperatorCall,
    VkValue,
)
from executorch.backends.vulkan.vulkan_preprocess import VulkanBackend
from executorch.exir import sym_util
from executorch.exir.backend import backend_api
from executorch.exir.dialects._ops import ops as edge_ops
from executorch.exir.pass_base import ExportPass
from executorch.exir.tracer import _default_decomposition_table
from torch import fx
from torch.export import ExportedProgram
from torch.export.graph_signature import OutputKind

from vkfuse.lower.operands import numbers_read
from vkfuse.lower.sizes import bounded
from vkfuse.program.guards import sizes_left_open
from vkfuse.program.operators import register_operators
from vkfuse.program.tensors import described
from vkfuse.runtime.device import SMALL_TEXTURE
from vkfuse.runtime.operands import Operands
from vkfuse.runtime.operators.attention import ATTENDED, WRITTEN
from vkfuse.runtime.operators.moves import COPY
from vkfuse.runtime.operators.norm import RMS_NORM, weight_for_each_column

NO_HANDLE = -1  # of a node that a pass of the backend's made

SerializeShaders = Callable[[Any, list[str], bytearray], bytes]


@contextmanager
def adjusted_upstream(
    fusions: Collection[str], serialize_shaders: SerializeShaders | None = None
) -> Iterator[None]:
    """ExecuTorch as vkfuse needs it within, all of it put back together afterwards. One thread at a time (`quiet`).

    Of upstream's fusions only `fusions` fire; `serialize_shaders` stores shaders with a graph.
    """
    patterns = vulkan_patterns.fusable_patterns
    kept = {name: entry for name, entry in _patterns(patterns).items() if name in fusions}
    shaders = serialize_shaders or serializer.serialize_custom_shaders
    with ExitStack() as stack:
        for owner, name, mend in (*_MENDS, *_shortcuts(), (serializer, "serialize_custom_shaders", shaders)):
            stack.enter_context(mock.patch.object(owner, name, mend))
        stack.enter_context(mock.patch.dict(vulkan_registry.vulkan_supported_ops, _entries()))
        stack.enter_context(mock.patch.dict(patterns, kept, clear=True))
        stack.enter_context(sizes_left_open())
        yield


def _patterns(patterns: Mapping[str, PatternEntry]) -> dict[str, PatternEntry]:
    """Upstream's fusions; that of RMS norms takes any factor for a weight, and fires where it is one for each column."""
    norm, kept = patterns["rms_norm"], dict(patterns)
    kept["rms_norm"] = PatternEntry(
        detector_fn=lambda node: _of_columns(norm.detector_fn(node)),
        create_replacement_fn=norm.create_replacement_fn,
    )
    return kept


def _of_columns(match: Any) -> Any:
    if match is None or not isinstance(match.weight_node, fx.Node):
        return None
    given = {"input": match.input_node, "weight": match.weight_node}
    shapes = {name: described(node.meta["val"]) for name, node in given.items()}
    wrong = weight_for_each_column(Operands(operator=RMS_NORM, values=shapes))
    return None if any(wrong) else match


def _entries() -> dict[Any, Any]:
    """Registry entries: quantized matmuls take their own weights, float lookups keep the order of their columns."""
    register_operators()
    registry, edge = vulkan_registry.vulkan_supported_ops, edge_ops.edge
    lookup, matmul = edge.aten.embedding.default, edge.et_vk.linear_q4gsw.default
    like_it = (matmul, edge.et_vk.linear_q8csw.default)  # executorch 1.5 has no entry of the latter
    dynamic = edge.et_vk.linear_dq8ca_q4gsw.default
    return {
        lookup: _lookup(registry[lookup]),
        **dict.fromkeys(like_it, _any_dtype(registry[matmul])),
        dynamic: _any_dtype(registry[dynamic]),
        edge.et_vk.conv2d_q8csw.default: _images(),
        edge.vkfuse.update_cache.default: _in_place(),
        edge.vkfuse.custom_sdpa.default: _over_caches(),
    }


def _in_place() -> Any:
    """The entry of a write into a cache: rows in the order of their columns; the position is no tensor there."""
    floats = vulkan_utils.FP_T
    return vulkan_registry.OpFeatures(
        pick_io_storage_fn=_storages_of_write,
        inputs_dtypes=[floats, floats, vulkan_utils.INT_T],
        outputs_dtypes=[floats],
        supports_resize=True,
    )


def _storages_of_write(node: fx.Node) -> tuple[list[Any], Any]:
    """Storages of a write [1, C, N, D]: into a cache that fits no texture, no shader takes rows from one."""
    _, *sizes = node.args[0].meta["val"].shape  # type: ignore[union-attr]
    long = any(size > limit for size, limit in zip(sizes[::-1], SMALL_TEXTURE, strict=True))
    contiguous, none = vulkan_utils.CONTIGUOUS_ANY, vulkan_utils.NO_STORAGE
    rows = vulkan_utils.CONTIGUOUS_BUFFER if long else contiguous
    return [contiguous, rows, none, none, vulkan_utils.ANY_STORAGE], contiguous


def _over_caches() -> Any:
    """The entry of attention over caches: a query in a buffer reads caches wherever they are; the position is no tensor."""
    buffer, contiguous, floats = (
        vulkan_utils.CONTIGUOUS_BUFFER,
        vulkan_utils.CONTIGUOUS_ANY,
        vulkan_utils.FP_T,
    )
    return vulkan_registry.OpFeatures(
        inputs_storage=[buffer, contiguous, contiguous, vulkan_utils.NO_STORAGE],
        outputs_storage=[buffer],
        inputs_dtypes=[floats, floats, floats, vulkan_utils.INT_T],
        outputs_dtypes=[floats],
        supports_resize=True,
    )


def _images() -> Any:
    """The entry of a convolution by its own weights: images in textures of four channels a texel."""
    image = vulkan_utils.CHANNELS_PACKED_TEXTURE
    return vulkan_registry.OpFeatures(
        inputs_storage=[image, *(vulkan_utils.NO_STORAGE,) * 8],
        outputs_storage=[image],
        inputs_dtypes=vulkan_utils.ALL_T,
        outputs_dtypes=vulkan_utils.FP_T,
        supports_prepacking=True,
    )


def _any_dtype(features: Any) -> Any:
    """A copy of a registry entry that takes inputs of any dtype: it lists those of activations only."""
    wide = copy.copy(features)
    wide.inputs_dtypes = vulkan_utils.DtypeSetList(vulkan_utils.ALL_T)
    return wide


def handle_of(node: fx.Node) -> int:
    """The debug handle that a node of an edge graph has, else `NO_HANDLE`."""
    return int(node.meta.get("debug_handle") or NO_HANDLE)


def _process_by_handle(builder: VkGraphBuilder, node: fx.Node, _count: int) -> Any:
    """Let a delegate's operator calls refer to the debug handles of their nodes, not to a count of the builder's."""
    if node.op == "placeholder" and node in numbers_read(node.users):
        node.meta["etvk_is_scalar_tensor"] = True
    if node.op == "call_function" and node.target == edge_ops.edge.vkfuse.update_cache.default:
        return _write_in_place(builder, node)
    if node.op == "call_function" and node.target == edge_ops.edge.vkfuse.custom_sdpa.default:
        return _attend(builder, node)
    return _process_node(builder, node, handle_of(node))


_process_node = VkGraphBuilder.process_node


def _attend(builder: VkGraphBuilder, node: Any) -> None:
    """Attention over caches: causal, neither a mask nor a scale."""
    ids, (query, keys, values, position) = builder.node_to_value_ids, node.args
    none = builder.create_null_value()
    causal = builder.get_or_create_scalar_value(True)
    out = builder.create_node_value(node)
    of = builder.delegate_mapping_builder.insert_delegate_mapping_entry(node)
    read = [ids[query], ids[keys], ids[values], _number(position, ids)]
    builder.chain.append(OperatorCall(node_id=of, name=ATTENDED, args=[*read, none, none, causal, none, out]))


def _number(position: fx.Node, ids: Any) -> int:
    """The number that a delegate is given for a position."""
    if position.op != "placeholder":
        raise ValueError(f"{position.name} is computed in a delegate, which reads it as a number")
    number: int = ids[position]
    return number


def _write_in_place(builder: VkGraphBuilder, node: Any) -> None:
    """A write into a cache: the new cache is where the old one is, of what the delegate does not keep in a copy."""
    ids, (cache, value, position, *_) = builder.node_to_value_ids, node.args
    number = _number(position, ids)
    of = builder.delegate_mapping_builder.insert_delegate_mapping_entry(node)
    if _first_of(cache).target == edge_ops.edge.et_vk.prepack.default:
        ids[node] = ids[cache]
    else:
        args = [ids[cache], builder.create_null_value(), builder.create_node_value(node)]
        builder.chain.append(OperatorCall(node_id=of, name=COPY, args=args))
    args = [ids[value], ids[node], number, ids[node]]
    builder.chain.append(OperatorCall(node_id=of, name=WRITTEN, args=args))


def _first_of(cache: Any) -> Any:
    """What a cache was before anything was written to it."""
    while cache.target == edge_ops.edge.vkfuse.update_cache.default:
        cache = cache.args[0]
    return cache


def _prepacked(program: ExportedProgram) -> ExportedProgram:
    """Copy constants to the GPU; a write into such a copy takes no memory of its own for what it returns."""
    program = _insert_prepack_nodes(program)
    for node in program.graph.find_nodes(
        op="call_function", target=edge_ops.edge.vkfuse.update_cache.default
    ):
        node.meta["spec"].const = _first_of(node).target == edge_ops.edge.et_vk.prepack.default
    return program


_insert_prepack_nodes = vulkan_preprocess.insert_prepack_nodes


def _keep_state(builder: VkGraphBuilder, node: Any) -> None:
    """End a delegate's graph: what it keeps is copied to where it is kept, everything else is an output."""
    ids, specs = builder.node_to_value_ids, builder.program.graph_signature.output_specs
    results = dict.fromkeys(
        zip((spec.kind for spec in specs), (s.target for s in specs), node.args[0], strict=True)
    )
    for kind, buffer, result in results:
        if kind is not OutputKind.BUFFER_MUTATION:
            builder.output_ids.append(ids[result])
            continue
        place = ids[_place_of(builder, buffer)]
        if place == ids[result]:
            continue
        of = builder.delegate_mapping_builder.insert_delegate_mapping_entry(result)
        args = [ids[result], builder.create_null_value(), place]
        builder.chain.append(OperatorCall(node_id=of, name=COPY, args=args))


def _place_of(builder: VkGraphBuilder, buffer: str) -> fx.Node:
    """The tensor on the GPU that a buffer is copied to, once: the one thing that reads it."""
    placeholders = {name: node for node, name in builder.program.graph_signature.inputs_to_buffers.items()}
    held = next(n for n in builder.program.graph.nodes if n.name == placeholders[buffer])
    place: fx.Node
    (place,) = held.users
    if place.target != edge_ops.edge.et_vk.prepack.default:
        raise ValueError(f"{place.name} reads the state {buffer} as a constant")
    return place


def _declare_input(builder: VkGraphBuilder, node: fx.Node) -> None:
    """Declare a number that the graph is called with though nothing in it reads it any more: calls go by position."""
    if not node.users and isinstance(node.meta.get("val"), torch.SymInt):
        builder.input_ids.append(builder.create_node_value(node))
        return
    _process_placeholder(builder, node)


_process_placeholder = VkGraphBuilder.process_placeholder_node


def _views_to_fuse(fuse: FuseViewCopyTransform, start: fx.Node, operators: list[Any]) -> list[fx.Node]:
    """The views that `start` may take the place of: up to the last whose sizes are known where `start` stands."""
    views: list[fx.Node] = _find_view_copy_chain(fuse, start, operators)
    while views and not all(size < start for size in views[-1].all_input_nodes[1:]):
        views.pop()
    return views


_find_view_copy_chain = FuseViewCopyTransform._find_view_copy_chain  # noqa: SLF001 - what is mended


def _call_squeezed(squeeze: SqueezeUnsqueezeInputs, operator: Any, args: Any, kwargs: Any, meta: Any) -> Any:
    """Call `operator`, relu and gelu between squeezes where the sizes are numbers, and no view is given its arguments."""
    sizes = meta["val"].shape if operator in _SQUEEZABLE else ()
    if kwargs or any(isinstance(size, torch.SymInt) for size in sizes):
        return ExportPass.call_operator(squeeze, operator, args, kwargs, meta)
    return _squeezed(squeeze, operator, args, kwargs, meta)


_squeezed = SqueezeUnsqueezeInputs.call_operator
_SQUEEZABLE = SqueezeUnsqueezeInputs._squeezable_ops  # noqa: SLF001 - what is mended


def _within(extents: Sequence[Any], limits: Sequence[int]) -> bool:
    """Whether extents fit at their largest."""
    return all(_largest(extent) <= limit for extent, limit in zip(extents, limits, strict=True))


def _largest(size: Any) -> Any:
    """The upper bound of a size; to compare the symbol itself would narrow what the program takes to its example.

    A symbol without a bound is returned as it is: such a guard is what bounds it.
    """
    if not isinstance(size, torch.SymInt):
        return size
    largest = bounded(size.node.expr, size.node.shape_env.var_to_range).upper
    return int(largest) if largest.is_Integer else size


def _elements_within(node: fx.Node, limit: int) -> bool:
    """Whether each tensor that `node` computes stays below `limit` elements."""
    value = node.meta["val"]
    tensors = value if isinstance(value, (list, tuple)) else (value,)
    return all(_largest(tensor.numel()) < limit for tensor in tensors)


def _scalar_by_type(builder: VkGraphBuilder, scalar: bool | float) -> int:
    """The value of a number, one for each type: to a dictionary 0 and 0.0 are the same."""
    known: dict[Any, int] = builder.const_scalar_to_value_ids
    key = (type(scalar), scalar)
    if key not in known:
        known[key] = len(builder.values)
        builder.values.append(VkValue(_SCALARS[type(scalar)](scalar)))
    return known[key]


def _with_infinity(builder: VkGraphBuilder, node: fx.Node) -> torch.Tensor:
    """A constant, one with infinity in its type of the file already: upstream stores the lowest half for it."""
    tensor: torch.Tensor = _param_tensor(builder, node)
    kind = builder.get_effective_dtype(tensor.dtype)
    if kind is tensor.dtype or not tensor.is_floating_point() or not bool(tensor.isinf().any()):
        return tensor
    held = torch.finfo(kind)
    return torch.where(tensor.isinf(), tensor, tensor.clamp(held.min, held.max)).to(kind)


_param_tensor = VkGraphBuilder.get_param_tensor
_SCALARS = {bool: Bool, int: Int, float: Double}


def _lookup(entry: Any) -> Any:
    """The entry of a float lookup whose rows lie in the order of their columns: its shader reads four at a time."""
    ordered = copy.copy(entry)
    contiguous = vulkan_utils.CONTIGUOUS_ANY
    ordered.inputs_storage = vulkan_utils.TensorRepSetList([vulkan_utils.NO_STORAGE, contiguous])
    ordered.outputs_storage = vulkan_utils.TensorRepSetList(contiguous)
    return ordered


def _graph_copied(program: ExportedProgram, _specs: Any) -> ExportedProgram:
    """A copy for the backend to rewrite, over the same constants: its passes replace some and write to none."""
    constants = (*program.state_dict.values(), *program.constants.values())
    return copy.deepcopy(
        program, {id(value): value for value in constants if isinstance(value, torch.Tensor)}
    )


def _decomposed(program: ExportedProgram, table: Any = None, **chosen: Any) -> ExportedProgram:
    """Decompose, unless that would only make a program functional and another decomposition is sure to follow.

    Programs that are lowered here are functional since they were loaded.
    """
    if table is not None and not table:
        follows = _default_decomposition_table().keys() - {*ops_not_to_decompose}
        if any(node.target in follows for node in program.graph.nodes):
            return _graph_copied(program, None)
    decomposed: ExportedProgram = _run_decompositions(program, table, **chosen)
    return decomposed


_run_decompositions = ExportedProgram.run_decompositions


@contextmanager
def functional_programs() -> Iterator[None]:
    """Within, ExecuTorch does not trace programs once more to make them functional."""
    with mock.patch.object(ExportedProgram, "run_decompositions", _decomposed) if _known() else nullcontext():
        yield


KNOWN: Final = frozenset(
    {"1.5.1"}
)  # versions of ExecuTorch with which the shortcuts were seen to change no byte


def _known() -> bool:
    return version("executorch").partition("+")[0] in KNOWN


def _shortcuts() -> tuple[tuple[Any, str, Any], ...]:
    """What makes the same file in less time and memory, of a version in which that was tested; else none."""
    if not _known():
        warnings.warn(f"ExecuTorch {version('executorch')}: lowering takes no shortcuts", stacklevel=2)
        return ()
    from vkfuse.lower.retraced import (  # noqa: PLC0415 - likewise
        ExportInterpreter,
        add_held_constant,
        recalling,
    )

    return (
        (VkGraphBuilder, "maybe_add_constant_tensor", add_held_constant),
        (ExportInterpreter, "run_node", recalling()),
    )


def _dimension_added(of: Any, before: Sequence[Any], after: Sequence[Any]) -> int | None:
    """Where a view adds a dimension of one and does nothing else: upstream finds one from [8, 8, 1] to [1, 8, 1, 8]."""
    found = _find_unsqueeze_dim(of, before, after)
    if found is None:
        return None
    at = found % len(after)
    return int(found) if [*after[:at], *after[at + 1 :]] == [*before] else None


_find_unsqueeze_dim = ViewCopyToSqueezeUnsqueezePass.find_unsqueeze_dim


def _is_redundant(transform: Any, node: fx.Node) -> bool:
    """Whether a copy changes nothing at any length: asked if [3] is [n, 3], torch would make n an example's 3."""
    tensors = (*node.all_input_nodes, node) if node.target in transform.redundant_ops else ()
    ranks = {len(of.meta["val"].shape) for of in tensors if isinstance(of.meta.get("val"), torch.Tensor)}
    return len(ranks) == 1 and bool(_should_remove(transform, node))


_should_remove = RemoveRedundantOpsTransform._should_remove  # noqa: SLF001 - no public name


def _identical(_tagged: Any, _given: Any) -> bool:
    """Let the guarded partitioner's readers of a second result read the first: ExecuTorch wants the graph as it was."""
    return True


_MENDS = (
    (backend_api, "is_identical_graph", _identical),
    (sym_util, "bound_sympy", bounded),
    (VulkanBackend, "copy_exported_program_for_preprocess", _graph_copied),
    (vulkan_preprocess, "insert_prepack_nodes", _prepacked),
    (vulkan_utils, "extents_are_valid", _within),
    (vulkan_utils, "within_buffer_limit", _elements_within),
    (VkGraphBuilder, "get_or_create_scalar_value", _scalar_by_type),
    (VkGraphBuilder, "get_param_tensor", _with_infinity),
    (VkGraphBuilder, "process_node", _process_by_handle),
    (VkGraphBuilder, "process_output_node", _keep_state),
    (VkGraphBuilder, "process_placeholder_node", _declare_input),
    (FuseViewCopyTransform, "_find_view_copy_chain", _views_to_fuse),
    (RemoveRedundantOpsTransform, "_should_remove", _is_redundant),
    (SqueezeUnsqueezeInputs, "call_operator", _call_squeezed),
    (ViewCopyToSqueezeUnsqueezePass, "find_unsqueeze_dim", _dimension_added),
)
