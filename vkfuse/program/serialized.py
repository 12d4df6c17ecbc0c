"""A serialized program (torch/_export/serde/schema.py) as plain data, checked before torch builds anything of it.

Names in it become Python source (torch.fx writes each graph as a function and runs that), attributes and imports. So every
string must be a plain name, unless it stands in a field with a check of its own; what is kept only for people to read, or
would be run as Python, is left out. Imports no torch.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from vkfuse.errors import InputError, UnsafePickleError
from vkfuse.program.expressions import check_expression, check_symbol
from vkfuse.program.names import (
    IMPORT_HINT,
    OPERATOR_ARGUMENT,
    STRUCTURES,
    higher_order_name,
    is_allowed_operator,
    is_allowed_target,
    is_foreign_operator,
)
from vkfuse.program.pickles import HINT as TRUST

_HINT: Final = "export the program again from its source"
# No quote, space or bracket, nothing that ends a name in source; a path of attributes may not lead into Python's own.
_NAME: Final = re.compile(r"(?!__.*\.)(?!.*\.__)[\w.+-]{0,1000}")
_VARIABLE: Final = re.compile(r"[A-Za-z_]\w{0,1000}|")  # torch.fx writes it so; a dot would set an attribute
_VARIABLES: Final = frozenset({"name", "as_name"})
_TEXTS: Final = frozenset({"as_string", "as_strings"})  # arguments; torch.fx writes them with repr
_NAMED: Final = frozenset(  # mappings by variables
    {
        *("tensor_values", "sym_int_values", "sym_float_values", "sym_bool_values", "custom_obj_values"),
        "as_string_to_argument",
    }
)
_READABLE: Final = ("nn_module_stack", "stack_trace")  # metadata of a node that lowering or a message uses
_LARGEST: Final = 2**63  # sizes and bounds are int64

Where = str


def checked_model(model: Any, where: Where) -> dict[str, Any]:
    """The program with nothing in it but what may be loaded.

    Raises UnsafePickleError for what could run code or reach outside of the program, with the node that it stands in, and
    InputError for what is no program or beyond all bounds.
    """
    if not isinstance(model, dict) or not isinstance(model.get("graph_module"), dict):
        raise InputError(f"{where}: no graph_module", hint=_HINT)
    return checked_part(model, where)  # type: ignore[no-any-return]


def checked_part(value: Any, where: Where) -> Any:
    """A copy of any part of a program, strings and numbers checked. Raises what `checked_model` does."""
    try:
        return checked_data(value, where)
    except RecursionError as error:
        raise InputError(f"{where}: nested too deeply", hint=_HINT) from error


def checked_data(value: Any, where: Where) -> Any:
    """The same within a part: RecursionError where it is nested too deeply."""
    if isinstance(value, dict):
        return {key: _field(key, of, where) for key, of in value.items()}
    if isinstance(value, list):
        return [checked_data(item, where) for item in value]
    if isinstance(value, str):
        return _plain(value, where)
    if isinstance(value, int) and abs(value) > _LARGEST:
        raise InputError(f"{where}: a number of {value.bit_length()} bits", hint=_HINT)
    return value


def _field(key: str, value: Any, where: Where) -> Any:
    """A field of a record: one that is known to hold more than names is checked as what it is."""
    _plain(key, where)
    check = _FIELDS.get(key)
    if check is not None:
        return check(value, where)
    if key in _NAMED and isinstance(value, dict):
        return {_plain(name, where, _VARIABLE): checked_data(of, where) for name, of in value.items()}
    if key in _VARIABLES and isinstance(value, str):
        return _plain(value, where, _VARIABLE)
    return value if key in _TEXTS else checked_data(value, where)


def _plain(text: str, where: Where, pattern: re.Pattern[str] = _NAME) -> str:
    if not pattern.fullmatch(text):
        raise UnsafePickleError(f"{where}: {text[:80]!r} is no name that torch writes", hint=_HINT)
    return text


def _expression(value: Any, where: Where) -> Any:
    if not isinstance(value, str):
        raise UnsafePickleError(f"{where}: an expression that is no text", hint=_HINT)
    check_expression(value, where)
    return value


def _bounds(value: Any, where: Where) -> Any:
    """`range_constraints`: the bounds of each symbol, and of expressions (`2*s39`)."""
    if not isinstance(value, dict):
        raise InputError(f"{where}: range_constraints is no mapping", hint=_HINT)
    for name in value:
        check = check_symbol if name.isidentifier() else check_expression
        check(name, f"{where}: range_constraints")
    return {name: checked_data(of, where) for name, of in value.items()}


def _nodes(value: Any, where: Where) -> Any:
    """The calls of a graph."""
    if not isinstance(value, list):
        raise InputError(f"{where}: nodes is no list", hint=_HINT)
    return [_node(node, where) for node in value]


def _node(node: Any, where: Where) -> dict[str, Any]:
    """One call: an operator that is allowed, its arguments, and of its metadata what lowering uses."""
    if not isinstance(node, dict) or not isinstance(node.get("target"), str):
        raise InputError(f"{where}: a node without a target", hint=_HINT)
    target = node["target"]
    at = f"{where}: node {_label(node)}"
    if not is_allowed_target(target):
        if is_foreign_operator(target):
            raise UnsafePickleError(
                f"{at}: nothing has registered the operator {target[:80]!r}", hint=IMPORT_HINT
            )
        raise UnsafePickleError(
            f"{at}: {target[:80]!r} is no operator that an untrusted program may call", hint=TRUST
        )
    rest = {key: of for key, of in node.items() if key not in {"target", "metadata", "inputs"}}
    inputs, takes_operator = node.get("inputs"), higher_order_name(target) in OPERATOR_ARGUMENT
    return {
        **checked_data(rest, at),
        "target": target,
        "inputs": _with_operators(inputs, at) if takes_operator else checked_data(inputs, at),
        "metadata": _readable(node.get("metadata"), at),
    }


def _label(node: Mapping[str, Any]) -> str:
    """The name of a node, or its target, made safe to print."""
    name = node.get("name") or node["target"]
    return re.sub(r"[^\w.-]", "?", str(name))[:80]


def _with_operators(inputs: Any, where: Where) -> Any:
    """The arguments of a call that takes an operator as its first."""
    if not isinstance(inputs, list) or not inputs or not isinstance(inputs[0], dict):
        raise InputError(f"{where}: no arguments", hint=_HINT)
    first, *rest = inputs
    operator = first["arg"].get("as_operator") if isinstance(first.get("arg"), dict) else None
    if not isinstance(operator, str) or not is_allowed_operator(operator):
        raise UnsafePickleError(f"{where}: {str(operator)[:80]!r} is no operator of the list", hint=TRUST)
    checked = checked_data({**first, "arg": None}, where)
    return [{**checked, "arg": {"as_operator": operator}}, *checked_data(rest, where)]


def _refused(value: Any, where: Where) -> Any:
    """`as_operator` where no operator is called, `as_custom_obj`: objects that a program has no use for."""
    raise UnsafePickleError(f"{where}: an argument that is an object: {str(value)[:80]!r}", hint=TRUST)


def _device(value: Any, where: Where) -> Any:
    """Where a tensor is. InputError for anything but memory, since kernels would run there."""
    if isinstance(value, dict) and value.get("type") not in _DEVICES:
        raise InputError(
            f"{where}: a tensor on {str(value.get('type'))[:40]!r}",
            hint="move the program to the CPU before export",
        )
    return checked_data(value, where)


_DEVICES: Final = ("cpu", "meta")


def _readable(metadata: Any, where: Where) -> dict[str, str]:
    """What lowering or a message reads of a node's metadata, as lines of printable text."""
    if metadata is None:
        return {}
    if not isinstance(metadata, dict):
        raise InputError(f"{where}: metadata is no mapping", hint=_HINT)
    kept = {key: metadata[key] for key in _READABLE if isinstance(metadata.get(key), str)}
    return {key: "\n".join(_printable(line) for line in text.splitlines()) for key, text in kept.items()}


def _printable(line: str) -> str:
    return "".join(c if c.isprintable() else " " for c in line)


def _structure(value: Any, where: Where) -> Any:
    """`in_spec`, `out_spec`: how inputs and outputs are nested, JSON within the JSON."""
    if value is None or value == "":
        return value
    try:
        protocol, spec = json.loads(value)
        return json.dumps([protocol, _checked_structure(spec, where)])
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise InputError(f"{where}: inputs or outputs of no structure: {error}", hint=_HINT) from error


def _checked_structure(spec: Mapping[str, Any], where: Where) -> dict[str, Any]:
    """Contexts, JSON once more, import modules by name for enums and default dictionaries (torch/utils/_pytree.py)."""
    kind, context, children = spec["type"], spec["context"], spec["children_spec"]
    checked = json.dumps(checked_data(json.loads(context) if isinstance(context, str) else context, where))
    if kind is not None and kind not in STRUCTURES:
        kind = _as_dictionary(kind, json.loads(checked), len(children), where)
    if "__enum__" in checked:
        raise UnsafePickleError(
            f"{where}: inputs or outputs name classes to import", hint="pass and return tensors"
        )
    return {
        "type": kind,
        "context": checked if isinstance(context, str) else json.loads(checked),
        "children_spec": [_checked_structure(child, where) for child in children],
    }


def _as_dictionary(kind: Any, keys: Any, count: int, where: Where) -> str:
    """What a class that names its fields is rebuilt as, like transformers' outputs: only the order of tensors counts."""
    named = isinstance(keys, list) and all(isinstance(key, str) and key.isidentifier() for key in keys)
    if not named or len(set(keys)) != count or len(keys) != count:
        raise UnsafePickleError(
            f"{where}: inputs or outputs are a {str(kind)[:80]!r}",
            hint="pass and return tuples, lists and dicts",
        )
    return "builtins.dict"


_FIELDS: Final[Mapping[str, Callable[[Any, Where], Any]]] = {
    "expr_str": _expression,
    "range_constraints": _bounds,
    "nodes": _nodes,
    "in_spec": _structure,
    "out_spec": _structure,
    "as_device": _device,
    "device": _device,
    "as_operator": _refused,
    "as_custom_obj": _refused,
    "guards_code": lambda _value, _where: [],  # source text that ExportedProgram.module() would run
    "metadata": lambda _value, _where: {},
}
