"""What each released runtime has: Vulkan operators, shaders, CPU kernels; the data ship in `vkfuse.data`."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any, Final

from vkfuse.errors import InputError

DEFAULT: Final = "1.5"


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """A runtime by its `major.minor`; `shaders` is None where their names are not known."""

    version: str
    operators: frozenset[str]
    shaders: frozenset[str] | None
    note: str = ""


def find_runtime(version: str) -> Runtime:
    """Return the runtime `version` (`1.5`, `1.5.1`); of one newer than all known the newest. InputError."""
    wanted = _minor(version)
    known = {_minor(name): name for name in _data("vulkan_runtime_ops.json")["ops"]}
    if wanted in known:
        return _runtime(known[wanted], "")
    newest = max(known)
    if wanted < newest:
        hint = f"known are {', '.join(known[key] for key in sorted(known))}"
        raise InputError(f"no operator list for ExecuTorch {version}", hint=hint)
    note = f"ExecuTorch {version} is newer than any known runtime; checked against {known[newest]}"
    return _runtime(known[newest], note)


def _minor(version: str) -> tuple[int, int]:
    """`1.5.1` -> (1, 5)."""
    match = re.fullmatch(r"v?(\d{1,4})\.(\d{1,4})([.+-].*)?", version.strip(), re.ASCII)
    if match is None:
        raise InputError(f"{version!r} is no version of ExecuTorch", hint="for example 1.5")
    return int(match[1]), int(match[2])


@cache
def _runtime(version: str, note: str) -> Runtime:
    """Return a known runtime."""
    shaders = _data("vulkan_runtime_shaders.json")["shaders"].get(version)
    return Runtime(
        version=version,
        operators=frozenset(_data("vulkan_runtime_ops.json")["ops"][version]),
        shaders=frozenset(shaders) if shaders is not None else None,
        note=note,
    )


@cache
def cpu_kernels() -> Mapping[str, str]:
    """Return the library of each CPU kernel (prim, portable, optimized, quantized, llm) by operator name."""
    libraries = _data("cpu_kernels.json")["kernels"]
    return MappingProxyType({name: library for library, names in libraries.items() for name in names})


@cache
def _data(name: str) -> dict[str, Any]:
    """Return a data file of the package."""
    loaded: dict[str, Any] = json.loads((files("vkfuse.data") / name).read_text("utf-8"))
    return loaded
