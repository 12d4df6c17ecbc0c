"""What is worked out from a file is worked out once, whoever asks."""

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar, cast

from vkfuse.pte.model import PteFile

_More = ParamSpec("_More")
_Made = TypeVar("_Made")


def once_a_file(
    make: Callable[Concatenate[PteFile, _More], _Made],
) -> Callable[Concatenate[PteFile, _More], _Made]:
    """Keep what `make` returns of a file, for each set of further arguments, as long as the file."""

    @wraps(make)
    def made(pte: PteFile, /, *args: _More.args, **keywords: _More.kwargs) -> _Made:
        key = (make, args, *keywords.items())
        if key not in pte.derived:
            pte.derived[key] = make(pte, *args, **keywords)
        return cast("_Made", pte.derived[key])

    return made
