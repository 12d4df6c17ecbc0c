"""What a loaded program calls, looked at once more as the objects that it would call."""

import operator
from collections.abc import Iterator
from typing import Any

import torch
from torch import fx
from torch._export.serde.serialize import _SYM_OPS
from torch.export import ExportedProgram

from vkfuse.errors import UnsafePickleError
from vkfuse.program.names import HIGHER_ORDER, OPERATOR_ARGUMENT, is_allowed_operator
from vkfuse.program.pickles import HINT

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
