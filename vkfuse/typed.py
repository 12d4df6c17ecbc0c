"""Options as data: dataclasses whose fields are of their types, or the words that the command line takes for them."""

import types
from collections.abc import Callable, Mapping
from dataclasses import fields
from enum import StrEnum
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from vkfuse.errors import VkfuseError

Parse = Callable[[str], object]


def option(
    told: str,
    *,
    metavar: str | None = None,
    flag: str | None = None,
    parse: Parse | None = None,
    read: Callable[[list[str]], object] | None = None,
) -> Mapping[str, Any]:
    """The metadata of a field that the command line offers too: what it is `told` to do, `flag` where that is another name.

    `parse` reads what is given as text (ValueError), `read` all texts of an option that is given several times.
    """
    return {"told": told, "metavar": metavar, "flag": flag, "parse": parse, "read": read}


class Typed:
    """A dataclass whose fields are of their types; a path, a choice, or what has a parser may be given as text."""

    __slots__ = ()

    def __post_init__(self) -> None:
        """Raise VkfuseError for a value of another type."""
        parsers = {of.name: of.metadata.get("parse") for of in fields(self)}  # type: ignore[arg-type]
        for name, kind in get_type_hints(type(self)).items():
            object.__setattr__(self, name, _of_kind(getattr(self, name), kind, name, parsers[name]))


def _of_kind(value: object, kind: Any, name: str, parse: Parse | None) -> object:
    """`value` as a `kind`. Raises VkfuseError."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is tuple and isinstance(value, str | list | tuple | set | frozenset):
        items = (value,) if isinstance(value, str) else value
        return tuple(_of_kind(item, arguments[0], name, parse) for item in items)
    if origin is Mapping and isinstance(value, Mapping):
        return {
            str(key): _of_kind(item, arguments[1], f"{name} of {key}", parse) for key, item in value.items()
        }
    kinds = arguments if origin is types.UnionType else (origin or kind,)
    if type(value) in kinds or (isinstance(value, kinds) and not isinstance(value, bool)):
        return value
    if isinstance(value, str):
        return _of_text(value, kinds, name, parse)
    raise _refused(value, kinds, name, "or text as on the command line" if parse else "")


def _of_text(text: str, kinds: tuple[Any, ...], name: str, parse: Parse | None) -> object:
    """What `text` says, for one of `kinds`."""
    if parse is not None:
        try:
            return parse(text)
        except ValueError as error:
            raise VkfuseError(f"the option {name}: {error}") from error
    choices = [each for each in kinds if issubclass(each, StrEnum)]
    found = next((choice(text) for choice in choices if text in {*choice}), None)
    if found is None and Path not in kinds:
        raise _refused(text, kinds, name)
    return found or Path(text)


def _refused(value: object, kinds: tuple[Any, ...], name: str, remedy: str = "") -> VkfuseError:
    words = [str(word) for each in kinds if issubclass(each, StrEnum) for word in each]
    names = " or ".join("None" if each is types.NoneType else each.__name__ for each in kinds)
    given = f"one of {', '.join(words)}" if words else f"give {names}"
    return VkfuseError(f"the option {name} is {value!r}", hint=f"{given}, {remedy}" if remedy else given)
