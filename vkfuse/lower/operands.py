"""The operands of an edge graph's nodes, and why a node stays on the CPU."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final

import torch
from torch import fx
from torch.export import ExportedProgram

from vkfuse.program.parts import stored_targets
from vkfuse.program.tensors import described
from vkfuse.runtime.codes import Code, Objection
from vkfuse.runtime.judge import judge
from vkfuse.runtime.operands import Operands, Symbol, Value
from vkfuse.runtime.operators import record_of
from vkfuse.runtime.versions import Runtime

_PLAIN: Final = (int, float, bool, str)
_NOTHING: Final[Mapping[str, Objection]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A runtime, and what is kept off its delegates for other reasons: by operator, or by method and node."""

    runtime: Runtime
    operators: Mapping[str, Objection] = field(default_factory=dict)
    nodes: Mapping[tuple[str, str], Objection] = field(default_factory=dict)

    def without(
        self, nodes: Mapping[tuple[str, str], Objection], operators: Mapping[str, Objection] = _NOTHING
    ) -> "Target":
        """Return this with more kept off; what was kept off first keeps its reason."""
        return replace(self, operators={**operators, **self.operators}, nodes={**nodes, **self.nodes})


def operator_name(node: fx.Node) -> str:
    """The name that the runtime registers, ``aten.add.Tensor``; symbolic arithmetic by its Python name."""
    target = _overload(node)
    return str(target) if target else getattr(node.target, "__name__", str(node.target))


def _overload(node: fx.Node) -> torch._ops.OpOverload | None:
    wrapped = getattr(node.target, "_op", None)  # an edge operator wraps its ATen operator
    found = (t for t in (node.target, wrapped) if isinstance(t, torch._ops.OpOverload))  # noqa: SLF001
    return next(found, None)


def numbers_read(nodes: Iterable[fx.Node]) -> frozenset[fx.Node]:
    """The nodes that an operator of the runtime reads as numbers, from outside of the delegate."""
    found: set[fx.Node] = set()
    for node in (n for n in nodes if n.op == "call_function"):
        record = record_of(operator_name(node))
        places = [record.position(name) for name in record.numbers.split()]
        numbers = [node.args[at] for at in places if at is not None]
        found |= {number for number in numbers if isinstance(number, fx.Node)}
    return frozenset(found)


def why_not(node: fx.Node, target: Target, constants: frozenset[str]) -> Objection | None:
    """The first reason to keep `node` on the CPU, None where it may be delegated; `constants` are placeholders' names."""
    if node.op != "call_function":
        return None
    name = operator_name(node)
    if name in target.operators:
        return target.operators[name]
    operands = operands_of(node, constants)
    if next(operands.tensors(), None) is None and not record_of(name).rules:  # arithmetic on sizes
        return None
    objections = judge(operands, target.runtime)
    return next((o for o in objections if o.code.effect != "note" and not _is_replaced(o, name)), None)


def _is_replaced(objection: Objection, name: str) -> bool:
    """Whether the operator need not be registered, since the backend's own passes rename or fuse it."""
    return objection.code is Code.NOT_REGISTERED and record_of(name).replaced


def constant_names(program: ExportedProgram) -> frozenset[str]:
    """Names of the placeholders that hold constants: parameters and buffers that nothing writes."""
    signature = program.graph_signature
    written = set(signature.buffers_to_mutate.values())
    return frozenset(name for name, target in stored_targets(signature).items() if target not in written)


def operands_of(node: fx.Node, constants: frozenset[str]) -> Operands:
    """The operands of a node, storages open."""
    record = record_of(operator_name(node))
    arguments = enumerate(_in_schema_order(node))
    return Operands(
        operator=record.name,
        values={record.argument(at): _value(argument, constants) for at, argument in arguments},
        output=_described(node.meta.get("val"), constant=False),
    )


def _in_schema_order(node: fx.Node) -> Iterator[Any]:
    """Yield the arguments, keywords where the schema has them."""
    yield from node.args
    overload = _overload(node)
    if overload is None:
        return
    for argument in overload._schema.arguments[len(node.args) :]:  # noqa: SLF001 - the only way to a schema
        yield node.kwargs.get(argument.name, argument.default_value)


def _value(argument: Any, constants: frozenset[str]) -> Value:
    if isinstance(argument, fx.Node):
        return _described(argument.meta.get("val"), constant=argument.name in constants)
    if isinstance(argument, (list, tuple)):
        return tuple(_value(member, constants) for member in argument)
    return argument if isinstance(argument, _PLAIN) else None


def _described(value: Any, *, constant: bool) -> Value:
    """What a node's value is: tensors by their greatest sizes."""
    if isinstance(value, (list, tuple)):
        return tuple(_described(member, constant=constant) for member in value)
    if isinstance(value, torch.Tensor):
        return described(value, constant=constant)
    return Symbol() if isinstance(value, torch.SymInt) else value if isinstance(value, _PLAIN) else None
