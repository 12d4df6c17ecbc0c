"""The same bounds for the program that torch has rebuilt, whatever the file declared."""

import math
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.utils._pytree import tree_leaves

from vkfuse.program.bounds import Step


def excess(exported: ExportedProgram) -> int:
    """Bytes that stored tensors and example inputs have beyond their storage: those of expanded ones."""
    stored = [
        *exported.state_dict.values(),
        *exported.constants.values(),
        *tree_leaves(exported.example_inputs),
    ]
    return sum(_excess(tensor) for value in stored for tensor in _plain_tensors(value))


def _plain_tensors(value: Any) -> Iterator[torch.Tensor]:
    """A tensor, or those that a tensor subclass holds."""
    if not isinstance(value, torch.Tensor):
        return
    if hasattr(value, "__tensor_flatten__"):
        for name in value.__tensor_flatten__()[0]:
            yield from _plain_tensors(getattr(value, name))
    else:
        yield value


def _excess(tensor: torch.Tensor) -> int:
    return max(0, tensor.numel() * tensor.element_size() - tensor.untyped_storage().nbytes())


def all_steps(exported: ExportedProgram) -> Iterator[Step]:
    """The calls of the program's graph and of those in it."""
    for module in exported.graph_module.modules():
        if isinstance(module, fx.GraphModule):
            yield from steps(module.graph)


def steps(graph: fx.Graph) -> list[Step]:
    """The calls of a graph, and what its outputs read."""
    return [
        Step(
            name=node.name,
            reads=tuple(i.name for i in node.all_input_nodes),
            makes=(node.name,) if node.op == "call_function" else (),
            bytes=_bytes(node),
        )
        for node in graph.nodes
        if node.op in {"call_function", "output"}
    ]


def stored_names(exported: ExportedProgram) -> set[str]:
    """Names of the placeholders that stored tensors fill."""
    specs = exported.graph_signature.input_specs
    return {spec.arg.name for spec in specs if spec.kind is not InputKind.USER_INPUT}


def _bytes(node: fx.Node) -> int:
    """Bytes of the tensors that a node computes; a symbolic size, which no constant has, counts as nothing."""
    value = node.meta.get("val")
    tensors: Iterable[Any] = value if isinstance(value, (tuple, list)) else (value,)
    return sum(
        math.prod(t.shape) * t.element_size()
        for t in tensors
        if isinstance(t, torch.Tensor) and all(isinstance(size, int) for size in t.shape)
    )
