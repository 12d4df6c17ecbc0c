"""What a program writes to in place, as buffers of their own.

A tensor that a module holds otherwise than as a parameter or buffer (in a cache that is an object of its own) is a
constant to ``torch.export``, and where it is registered too, it is two inputs over one storage. `run_decompositions`
traces writes to neither: it wants a buffer, which nothing else shares. A parameter that is written to is one, too.
"""

import copy
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram
from torch.export.graph_signature import ExportGraphSignature, InputKind, InputSpec, OutputKind, OutputSpec

from vkfuse.errors import LoweringError
from vkfuse.program.parts import with_parts


def written_as_buffers(exported: ExportedProgram, name: str) -> ExportedProgram:
    """`exported`, called `name`, with each constant that it writes to as a buffer that shares its storage with no input.

    Inputs that are one tensor become one of them; those that nothing reads get a storage of their own. LoweringError
    where another part of a written storage is read.
    """
    written = {place.name for node in exported.graph.nodes for place in _written(node)}
    outputs = [_of_buffer(spec) for spec in exported.graph_signature.output_specs]
    results = {spec.target for spec in outputs if spec.kind is OutputKind.BUFFER_MUTATION}
    written |= {spec.arg.name for spec in exported.graph_signature.input_specs if spec.target in results}
    specs = [
        _as_buffer(spec) if spec.arg.name in written else spec
        for spec in exported.graph_signature.input_specs
    ]
    shared = [group for group in _by_storage(exported, specs) if written & {spec.arg.name for spec in group}]
    if not shared and specs == exported.graph_signature.input_specs:
        return exported
    values = {**exported.state_dict, **exported.constants}
    values |= {name: values[name].detach() for name in _targets(specs, written) if name in values}
    graph = copy.deepcopy(exported.graph)
    placeholders = {node.name: node for node in graph.find_nodes(op="placeholder")}
    for group in shared:
        kept = _kept(group, [spec for spec in group if placeholders[spec.arg.name].users], values, name)
        for spec in group:
            if spec is not kept:
                placeholders[spec.arg.name].replace_all_uses_with(placeholders[kept.arg.name])
                values[spec.target] = values[spec.target].clone()
    return with_parts(
        exported,
        graph=graph,
        graph_signature=ExportGraphSignature(input_specs=specs, output_specs=outputs),
        state_dict={key: values[key] for key in exported.state_dict},
        constants={key: values[key] for key in exported.constants},
    )


def _targets(specs: Iterable[InputSpec], names: Collection[str]) -> Iterator[str]:
    """Yield where the tensors of some inputs are stored."""
    return (spec.target for spec in specs if spec.arg.name in names and spec.target is not None)


def _as_buffer(spec: InputSpec) -> InputSpec:
    if spec.kind not in {InputKind.CONSTANT_TENSOR, InputKind.PARAMETER}:
        return spec
    return replace(spec, kind=InputKind.BUFFER, persistent=spec.kind is InputKind.PARAMETER)


def _of_buffer(spec: OutputSpec) -> OutputSpec:
    return (
        replace(spec, kind=OutputKind.BUFFER_MUTATION) if spec.kind is OutputKind.PARAMETER_MUTATION else spec
    )


def _by_storage(exported: ExportedProgram, specs: Iterable[InputSpec]) -> Iterator[Sequence[InputSpec]]:
    """The tensors of `exported` that share a storage, where several do."""
    values = {**exported.state_dict, **exported.constants}
    stored = [(_storage(values.get(spec.target)), at, spec) for at, spec in enumerate(specs)]
    for storage, group in groupby(sorted(stored), key=lambda entry: entry[0]):
        together = [spec for _, _, spec in group]
        if storage and len(together) > 1:
            yield together


def _storage(value: Any) -> int:
    """Where the bytes of a plain tensor begin; 0 for what has none."""
    plain = type(value) in {torch.Tensor, torch.nn.Parameter, torch.nn.Buffer}
    return value.untyped_storage().data_ptr() if plain else 0


def _kept(
    group: Sequence[InputSpec], read: Sequence[InputSpec], values: dict[Any, Any], name: str
) -> InputSpec:
    """The buffer of `group` that is what all of `read` are, a registered one before a constant.

    LoweringError where those are parts that differ.
    """
    first, *others = read
    for other in others:
        if _part(values[other.target]) != _part(values[first.target]):
            raise LoweringError(
                f"{name}: {first.target} and {other.target} are parts of one tensor, and the program writes to it in place",
                hint="give each a storage of its own before export (.clone())",
            )
    same = (spec for spec in group if _part(values[spec.target]) == _part(values[first.target]))
    return next((spec for spec in same if spec.kind is InputKind.BUFFER), first)


def _part(value: torch.Tensor) -> tuple[Any, ...]:
    return value.data_ptr(), value.shape, value.stride(), value.dtype


def _written(node: fx.Node) -> Iterator[fx.Node]:
    """Inputs that `node` writes to, through views of them too."""
    for at, argument in enumerate(_arguments(node)):
        place = node.args[at] if at < len(node.args) else node.kwargs.get(argument.name)
        if argument.alias_info is not None and argument.alias_info.is_write and isinstance(place, fx.Node):
            yield _viewed(place)


def _viewed(node: fx.Node) -> fx.Node:
    """What `node` is a view of, itself where it is none."""
    while (arguments := _arguments(node)) and arguments[0].alias_info is not None:
        first = node.args[0] if node.args else None
        if not isinstance(first, fx.Node):
            return node
        node = first
    return node


def _arguments(node: fx.Node) -> list[Any]:
    schema = getattr(node.target, "_schema", None)
    return [] if node.op != "call_function" or schema is None else schema.arguments
