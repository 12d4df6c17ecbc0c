"""The same bounds, and what is called, looked at once more in the program that torch has rebuilt."""

import math
import operator
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import fx
from torch._export.serde.serialize import _SYM_OPS
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.utils._pytree import tree_leaves

from vkfuse.errors import UnsafePickleError
from vkfuse.program.bounds import Step
from vkfuse.program.names import HIGHER_ORDER, OPERATOR_ARGUMENT, is_allowed_operator
from vkfuse.program.pickles import HINT


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


_SYMBOLIC = {*_SYM_OPS, operator.getitem}
_PASSIVE = ("placeholder", "output")


def check_targets(exported: ExportedProgram, where: str) -> None:
    """Raise UnsafePickleError for a node of any graph that calls something off the list, or is handed something to call."""
    for module in exported.graph_module.modules():
        if not isinstance(module, fx.GraphModule):
            continue
        for node in module.graph.nodes:
            if node.op not in _PASSIVE and not _is_harmless(node, module):
                raise UnsafePickleError(
                    f"{where}: node {node.name}: {node.op} of {str(node.target)[:80]!r} is not allowed",
                    hint=HINT,
                )


def _is_harmless(node: fx.Node, module: fx.GraphModule) -> bool:
    if node.op == "get_attr":
        return isinstance(getattr(module, str(node.target), None), fx.GraphModule)
    if node.op != "call_function":
        return False
    handed = [value for value in _values((node.args, node.kwargs)) if callable(value)]
    if _name(node.target) in OPERATOR_ARGUMENT:
        return len(handed) == 1 and handed[0] is node.args[0] and _is_operator(handed[0])
    return not handed and (
        _is_operator(node.target)
        or _name(node.target) in HIGHER_ORDER
        or any(node.target is known for known in _SYMBOLIC)
    )


def _is_operator(target: object) -> bool:
    if not isinstance(target, torch._ops.OpOverload):  # noqa: SLF001 - torch names the class nowhere else
        return False
    return is_allowed_operator(f"torch.ops.{target}") and _registered(target)


def _registered(target: "torch._ops.OpOverload") -> bool:
    """Whether the dispatcher knows this very object under its name."""
    namespace, name = target._schema.name.split("::")  # noqa: SLF001 - torch has no public name for it
    return getattr(getattr(getattr(torch.ops, namespace), name), target._overloadname) is target  # noqa: SLF001


def _name(target: object) -> str:
    """The name of a higher-order operator; empty for anything else."""
    if not isinstance(target, torch._ops.HigherOrderOperator):  # noqa: SLF001 - torch names the class nowhere else
        return ""
    return str(target.name())  # type: ignore[no-untyped-call]


def _values(value: Any) -> Iterator[Any]:
    """Everything inside of a node's arguments but other nodes, dtypes and devices."""
    if isinstance(value, dict):
        yield from _values(list(value.values()))
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _values(item)
    elif not isinstance(value, fx.Node):
        yield value
