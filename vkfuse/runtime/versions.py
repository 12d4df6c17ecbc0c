"""What each released runtime has: Vulkan operators, shaders, CPU kernels; a folder of `data` a version."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from importlib.resources import files
from types import MappingProxyType
from typing import Final

from vkfuse.errors import InputError
from vkfuse.runtime.data import lines

_VERSION: Final = re.compile(r"v?(\d{1,4})\.(\d{1,4})(?:\.(\d{1,4}))?(?:[.+-].*)?", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """A runtime by its version; `shaders` is None where their names are not known."""

    version: str
    operators: frozenset[str]
    shaders: frozenset[str] | None
    note: str = ""

    @property
    def key(self) -> tuple[int, int, int]:
        """`1.5.1` -> (1, 5, 1)."""
        major, minor, patch = _parsed(self.version)
        return major, minor, patch or 0


def find_runtime(version: str) -> Runtime:
    """Return the runtime `version`: of `1.5` the newest patch, of a newer one than all known the newest. InputError."""
    wanted = _parsed(version)
    known = known_versions()
    line = [name for name in known if _parsed(name)[:2] == wanted[:2]]
    exact = [name for name in line if wanted[2] is not None and (_parsed(name)[2] or 0) <= wanted[2]]
    if line:
        return _runtime((exact or line)[-1])
    if wanted[:2] < _parsed(known[-1])[:2]:
        raise InputError(f"no operator list for ExecuTorch {version}", hint=f"known are {', '.join(known)}")
    note = f"ExecuTorch {version} is newer than any known runtime; checked against {known[-1]}"
    return replace(_runtime(known[-1]), note=note)


def _parsed(version: str) -> tuple[int, int, int | None]:
    """`1.5.1` -> (1, 5, 1), `1.5` -> (1, 5, None)."""
    match = _VERSION.fullmatch(version.strip())
    if match is None:
        raise InputError(f"{version!r} is no version of ExecuTorch", hint="for example 1.5")
    return int(match[1]), int(match[2]), None if match[3] is None else int(match[3])


@cache
def known_versions() -> tuple[str, ...]:
    """The versions that there are data of, in order."""
    folders = (entry.name for entry in files("vkfuse.runtime.data").iterdir() if entry.name[:1].isdigit())
    return tuple(sorted(folders, key=lambda name: (_parsed(name)[:2], _parsed(name)[2] or 0)))


def lines_with(operator: str) -> tuple[str, ...]:
    """The versions that register an operator, as `major.minor`."""
    found = (_runtime(name) for name in known_versions())
    return tuple(dict.fromkeys("{}.{}".format(*r.key[:2]) for r in found if operator in r.operators))


def default_runtime() -> str:
    """`major.minor` of the installed ExecuTorch, else of the newest runtime that is known."""
    try:
        newest = installed_version("executorch")
    except PackageNotFoundError:
        newest = known_versions()[-1]
    return "{}.{}".format(*_parsed(newest)[:2])


DEFAULT: Final = default_runtime()


@cache
def _runtime(version: str) -> Runtime:
    return Runtime(
        version=version,
        operators=frozenset(lines(version, "operators.txt")),
        shaders=frozenset(lines(version, "shaders.txt")) or None,
    )


def data_digest(version: str) -> str:
    """The SHA-256 of all that is known of the runtime `version`. InputError."""
    found = find_runtime(version)
    known = (*sorted(found.operators), "", *sorted(found.shaders or ()), "", *sorted(cpu_kernels()))
    return hashlib.sha256("\n".join(known).encode()).hexdigest()


@cache
def cpu_kernels() -> Mapping[str, str]:
    """Return the library of each CPU kernel (prim, portable, optimized, quantized, llm) by operator name."""
    listed = (line.split() for line in lines(known_versions()[-1], "kernels.txt"))
    return MappingProxyType({name: library for library, name in listed})
