"""Reports and other dataclasses as a cache keeps them: JSON from which they can be made again."""

from collections.abc import Mapping
from dataclasses import is_dataclass
from enum import StrEnum
from functools import partial
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from vkfuse.pte.place import Place
from vkfuse.report.serial import NOT_FINITE, plain

_Of = TypeVar("_Of")


def stored(value: Any) -> Any:
    """Return a dataclass as JSON types; a place is a list of its parts."""
    return plain(value, place=lambda of: [of.method, of.delegate, of.call])


def restored(cls: type[_Of], of: Any) -> _Of:
    """Return the dataclass that was stored. ValueError for anything else."""
    made: _Of = _restored(cls, of)
    return made


def _restored(hint: Any, value: Any) -> Any:
    """Return what was stored of a type. ValueError."""
    if hint is Place:
        hints = get_type_hints(Place)
        return Place(*(_restored(h, v) for h, v in zip(hints.values(), _list(value), strict=True)))
    if is_dataclass(hint):
        return _dataclass(hint, value)
    if hint is float:
        return _float(value)
    if hint in {str, int, bool, NoneType}:
        return value if type(value) is hint else _none(hint, value)
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return hint(value)
    return _generic(hint, value)


def _dataclass(cls: Any, value: Any) -> Any:
    hints = get_type_hints(cls)
    if not isinstance(value, dict) or value.keys() != hints.keys():
        _none(cls, value)
    return cls(**{name: _restored(hint, value[name]) for name, hint in hints.items()})


def _float(value: Any) -> float:
    """Return a number as it is: a count may stand where a float may."""
    if value in NOT_FINITE:
        return float(value)
    number: float = value if type(value) in {int, float} else _none(float, value)
    return number


def _generic(hint: Any, value: Any) -> Any:
    """Return what was stored of a Literal, union, tuple or mapping."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal and value in arguments:
        return value
    if origin is tuple:
        return tuple(map(partial(_restored, arguments[0]), _list(value)))
    if origin is Mapping and isinstance(value, dict):
        return {name: _restored(arguments[1], each) for name, each in value.items()}
    return _one_of(arguments, value) if origin is UnionType else _none(hint, value)


def _one_of(hints: tuple[Any, ...], value: Any) -> Any:
    for hint in hints:
        try:
            return _restored(hint, value)
        except ValueError:
            continue
    return _none(hints, value)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else _none(list, value)


def _none(hint: Any, value: Any) -> Any:
    raise ValueError(f"{str(value)[:80]} is no {hint}")
