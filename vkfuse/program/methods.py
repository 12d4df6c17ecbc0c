"""Which programs become which methods of a file. Imports no torch."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from vkfuse.errors import InputError

METHOD = "forward"  # of a program without a name
_STDIN = Path("-")
_HINT = "vkfuse optimize prefill=prefill.pt2 decode=decode.pt2 -o model.pte"
Source = TypeVar("Source")


def parse_methods(arguments: Sequence[str]) -> dict[str, Path]:
    """Method -> path, from arguments `NAME=PATH`, or from one `PATH`, which is the method "forward".

    What stands before the first `=` is a name unless it has a slash: `./a=b.pt2` is a path. Raises InputError.
    """
    parsed = [_parse(argument) for argument in arguments]
    unnamed = [path for name, path in parsed if name is None]
    if unnamed and len(parsed) > 1:
        output = next((path for path in unnamed if path.suffix == ".pte" and not path.exists()), None)
        hint = f"name each: {_HINT}" if output is None else f"name the file to write with -o: -o {output}"
        raise InputError(f"{unnamed[0]}: one of {len(parsed)} programs has no name", hint=hint)
    names = [METHOD if name is None else name for name, _ in parsed]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"two programs are called {twice!r}", hint="give each method a name of its own")
    return checked_methods({name: path for name, (_, path) in zip(names, parsed, strict=True)})


def _parse(argument: str) -> tuple[str | None, Path]:
    """The name, None where there is none, and the path."""
    name, equals, path = argument.partition("=")
    if not equals or "/" in name:
        return None, Path(argument)
    if not path:
        raise InputError(f"{argument}: no path after the name", hint=_HINT)
    if not name.isidentifier():
        raise InputError(
            f"{argument}: {name!r} is no name for a method",
            hint=f"names are identifiers, like prefill_16; for a file of this name, ./{argument}",
        )
    return name, Path(path)


def checked_methods(sources: Mapping[str, Source]) -> dict[str, Source]:
    """`sources` by method. Raises InputError for names that are no identifiers, for stdin twice, for none at all."""
    if not sources:
        raise InputError("no program was given", hint=_HINT)
    bad = next((name for name in sources if not name.isidentifier()), None)
    if bad is not None:
        raise InputError(f"{bad!r} is no name for a method", hint="names are identifiers, like prefill_16")
    paths = (source for source in sources.values() if isinstance(source, str | Path))
    if sum(str(path) == str(_STDIN) for path in paths) > 1:
        raise InputError("stdin holds one program", hint="give the others as paths")
    return dict(sources)
