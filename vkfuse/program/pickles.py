"""Pickles, read opcode by opcode: which names they would import. Imports no torch."""

import pickletools
import re
from typing import Final

from vkfuse.errors import InputError, UnsafePickleError
from vkfuse.program.names import is_allowed_class

HINT: Final = "load it with --allow-pickle only if you trust who made the file"
_STRING_OPS: Final = frozenset(
    {"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE", "SHORT_BINSTRING", "BINSTRING", "STRING"}
)
_PUT_OPS: Final = frozenset({"PUT", "BINPUT", "LONG_BINPUT"})
_GET_OPS: Final = frozenset({"GET", "BINGET", "LONG_BINGET"})


def check_pickle(data: bytes, where: str) -> None:
    """Raise UnsafePickleError where a pickle wants to import anything that is not allowed, InputError where it is none."""
    for qualified in sorted(pickle_globals(data, where)):
        if not is_allowed_class(qualified):
            raise UnsafePickleError(
                f"{where}: a pickle inside wants to import {qualified!r}, which is not allowed", hint=HINT
            )


def _imported(data: bytes, at: int, where: str) -> str:
    """The qualified name of the opcode at `at`: a line for the module and one for the name, as they stand.

    pickletools undoes escapes in them, which an unpickler does not.
    """
    middle = data.index(b"\n", at)
    lines = data[at + 1 : middle], data[middle + 1 : data.index(b"\n", middle + 1)]
    if not all(_QUALIFIED.fullmatch(line) for line in lines):
        raise UnsafePickleError(f"{where}: the pickle imports an odd name: {lines}", hint=HINT)
    return b".".join(lines).decode()


_QUALIFIED = re.compile(rb"[A-Za-z0-9_.]+")


def pickle_globals(data: bytes, where: str) -> set[str]:
    """Qualified names that a pickle would import, read opcode by opcode without running it.

    Raises UnsafePickleError where the name cannot be told from the opcodes alone.
    """
    found: set[str] = set()
    memo: dict[int, str | None] = {}
    strings: list[str | None] = [None, None]  # the last two pushes, None where not a string
    last: str | None = None  # the string that the previous opcode left on top, if any
    try:
        for opcode, arg, at in pickletools.genops(data):
            if opcode.name in {"EXT1", "EXT2", "EXT4"}:
                raise UnsafePickleError(f"{where}: the pickle uses the copyreg extension registry", hint=HINT)
            if opcode.name in {"GLOBAL", "INST"}:
                found.add(_imported(data, int(at or 0), where))
            elif opcode.name == "STACK_GLOBAL":
                if None in strings:
                    raise UnsafePickleError(
                        f"{where}: the pickle computes the name that it imports", hint=HINT
                    )
                found.add(".".join(str(s) for s in strings))
            if opcode.name in _PUT_OPS:
                memo[int(str(arg))] = last
                continue
            if opcode.name == "MEMOIZE":
                memo[len(memo)] = last
                continue
            last = (
                str(arg)
                if opcode.name in _STRING_OPS
                else memo.get(int(str(arg)))
                if opcode.name in _GET_OPS
                else None
            )
            strings = [strings[1], last]
    except (ValueError, IndexError, KeyError, UnicodeDecodeError) as error:
        raise InputError(
            f"{where}: not a readable pickle: {error}", hint="export the program again"
        ) from error
    return found
