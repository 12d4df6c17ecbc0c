"""The operands of a call by the names of its operator's schema, and what is known of a node's value."""

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Any

import torch
from torch import fx

from vkfuse.program.tensors import TORCH_TYPES
from vkfuse.pte.enums import ScalarType


@cache
def defaults_of(target: Any) -> Mapping[str, Any]:
    """The names of an operator's operands, in order, each with its default, None where it has none.

    What schemas call ``self`` or ``input``, two words that Python keeps for itself, is `x`.
    """
    return MappingProxyType({_spelled(of.name): _default(of) for of in target._schema.arguments})  # noqa: SLF001


def _spelled(name: str) -> str:
    return "x" if name in {"self", "input"} else name


def _default(of: Any) -> Any:
    """A default as calls have it: a schema writes a type as its number."""
    given = of.default_value
    typed = isinstance(given, int) and str(of.real_type) == "ScalarType"
    return TORCH_TYPES[ScalarType(given)] if typed else given


def operands(node: fx.Node) -> dict[str, Any]:
    """All operands of a call of an operator by name, in the order of its schema, with the schema's defaults."""
    defaults = defaults_of(node.target)
    named = {_spelled(name): value for name, value in node.kwargs.items()}
    return {**defaults, **dict(zip(defaults, node.args, strict=False)), **named}


def operand(node: fx.Node, name: str) -> Any:
    """One operand of a call of an operator, its default where it is not given."""
    return operands(node)[name]


def arguments_with(node: fx.Node, changed: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """The arguments of a call, by position and by keyword, with some operands changed; those between at their defaults."""
    given = {**operands(node), **changed}
    names, last = [*given], sum(not of.kwarg_only for of in node.target._schema.arguments)  # type: ignore[union-attr] # noqa: SLF001
    count = len(node.args)
    for at, name in enumerate(names[:last]):
        count = max(count, at + 1) if name in changed else count
    named = {name: given[name] for name in names[count:] if name in node.kwargs or name in changed}
    return [given[name] for name in names[:count]], named


def is_pure(target: Any) -> bool:
    """Whether a call's target is an operator that changes nothing and draws no random numbers."""
    if not isinstance(target, torch._ops.OpOverload):  # noqa: SLF001 - torch names the class nowhere else
        return False
    return not target._schema.is_mutable and torch.Tag.nondeterministic_seeded not in target.tags  # noqa: SLF001


def draws(node: fx.Node) -> bool:
    """Whether a call draws random numbers: a dropout does in training, an attention where it has one."""
    if torch.Tag.nondeterministic_seeded not in getattr(node.target, "tags", ()):
        return False
    of = operands(node)
    return bool(of.get("dropout_p", 1.0)) and of.get("train") is not False and of.get("training") is not False


def is_dynamic(of: fx.Node | torch.Tensor) -> bool:
    """Whether a tensor has a symbolic size."""
    value = of.meta["val"] if isinstance(of, fx.Node) else of
    return any(isinstance(size, torch.SymInt) for size in value.shape)
