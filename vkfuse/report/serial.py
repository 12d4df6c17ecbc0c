"""The report as JSON, and the JSON Schema that the package ships, both derived from the dataclasses.

`python -m vkfuse.report.serial` prints the schema for `vkfuse/data/report.schema.json`.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Final, Literal, get_args, get_origin, get_type_hints

from vkfuse import __version__
from vkfuse.pte.place import Place
from vkfuse.report.model import SCHEMA, SEVERAL, Report, Reports

_SCALARS: Final = {str: "string", int: "integer", bool: "boolean", NoneType: "null", Place: "string"}
NOT_FINITE: Final = ("nan", "inf", "-inf")


def to_json(report: Report | Reports) -> dict[str, Any]:
    """Return the report as plain JSON types, keys in the order of the dataclasses; of several a list of such."""
    if isinstance(report, Reports):
        reports = [*map(to_json, report.reports)]
        return {"schema": SEVERAL, "vkfuse": __version__, "reports": reports, "unread": plain(report.unread)}
    return {"schema": SCHEMA, "vkfuse": __version__, **plain(report)}


def dumps(report: Report | Reports) -> str:
    """Return the report as JSON text."""
    return json.dumps(to_json(report), indent=2, allow_nan=False) + "\n"


def plain(value: Any, *, place: Callable[[Place], Any] = str) -> Any:
    """Return a dataclass, mapping, tuple or scalar as JSON types; a place, or a number that JSON lacks, as text."""
    if isinstance(value, Place):
        return place(value)
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name), place=place) for field in fields(value)}
    if isinstance(value, Mapping):
        return {key: plain(item, place=place) for key, item in value.items()}
    if isinstance(value, tuple):
        return [plain(item, place=place) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of `to_json`'s result; unknown keys are allowed everywhere."""
    definitions: dict[str, Any] = {}
    root = _object(Report, definitions)
    fixed = {"schema": {"const": SCHEMA}, "vkfuse": {"type": "string"}}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "vkfuse report",
        **root,
        "properties": fixed | root["properties"],
        "required": [*fixed, *root["required"]],
        "$defs": dict(sorted(definitions.items())),
    }


def _object(cls: type, definitions: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a dataclass; the first line of its docstring describes it."""
    hints = get_type_hints(cls)
    return {
        "type": "object",
        "description": (cls.__doc__ or "").partition("\n")[0],
        "properties": {name: _schema(hint, definitions) for name, hint in hints.items()},
        "required": list(hints),
    }


def _schema(hint: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    if hint in _SCALARS:
        return {"type": _SCALARS[hint]}
    if hint is float:
        return {"anyOf": [{"type": "number"}, {"enum": list(NOT_FINITE)}]}
    if is_dataclass(hint):
        return _reference(hint, definitions)
    return _generic(hint, definitions)


def _reference(cls: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    """Return a reference to a dataclass, which is defined once."""
    if cls.__name__ not in definitions:
        definitions[cls.__name__] = {}  # a class that holds itself finds its name taken
        definitions[cls.__name__] = _object(cls, definitions)
    return {"$ref": f"#/$defs/{cls.__name__}"}


def _generic(hint: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a Literal, union, tuple or mapping."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin is UnionType:
        return {"anyOf": [_schema(argument, definitions) for argument in arguments]}
    if origin is tuple:
        return {"type": "array", "items": _schema(arguments[0], definitions)}
    if origin is Mapping:
        return {"type": "object", "additionalProperties": _schema(arguments[1], definitions)}
    raise TypeError(hint)


if __name__ == "__main__":
    print(json.dumps(json_schema(), indent=2))  # noqa: T201 - the module's command prints the schema
