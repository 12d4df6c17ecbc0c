"""The compiled shaders that ship in the package, and the manifest that describes them."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any, cast

from vkfuse.errors import InputError
from vkfuse.glsl.spirv import reflect
from vkfuse.glsl.variants import Variant

SCHEMA = "vkfuse.shaders/1"
MANIFEST = "manifest.json"
SPIRV = ".spv"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shader:
    """One compiled shader. `bindings` are descriptor types in order, `features` Vulkan features to enable."""

    name: str
    bytes: int
    sha256: str
    spirv: str
    bindings: tuple[str, ...]
    capabilities: tuple[str, ...]
    extensions: tuple[str, ...]
    features: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """All compiled shaders, and what compiled them (lines of version text)."""

    compiler: tuple[str, ...]
    shaders: tuple[Shader, ...]
    schema: str = SCHEMA

    def dumps(self) -> str:
        """JSON, one key a line, so that a change of a shader is a readable diff."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def loads(cls, text: str) -> "Manifest":
        """Parse what `dumps` wrote. InputError for anything else."""
        try:
            data = json.loads(text)
            shaders = tuple(_shader(entry) for entry in data["shaders"])
            return cls(compiler=tuple(data["compiler"]), shaders=shaders, schema=data["schema"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"not a shader manifest: {error}") from error


def describe(name: str, spirv: bytes) -> Shader:
    """The manifest's entry for a compiled shader."""
    reflection = reflect(spirv)
    return Shader(
        name=name,
        bytes=len(spirv),
        sha256=hashlib.sha256(spirv).hexdigest(),
        spirv=reflection.version,
        bindings=reflection.bindings,
        capabilities=reflection.capabilities,
        extensions=reflection.extensions,
        features=reflection.features,
    )


def manifest_of(compiler: tuple[str, ...], shaders: Mapping[str, bytes]) -> Manifest:
    """The manifest of compiled shaders by name."""
    entries = tuple(describe(name, spirv) for name, spirv in sorted(shaders.items()))
    return Manifest(compiler=compiler, shaders=entries)


@cache
def shipped_manifest() -> Manifest:
    """The manifest in the package."""
    return Manifest.loads((shipped_folder() / MANIFEST).read_text(encoding="utf-8"))


def digest(shaders: Iterable[bytes]) -> str:
    """SHA-256 of compiled shaders one after another, in hexadecimal: what a report was made with."""
    return hashlib.sha256(b"".join(shaders)).hexdigest()


def shipped_spirv(variant: Variant) -> bytes:
    """The SPIR-V of a variant, as it ships in the package."""
    return (shipped_folder() / f"{variant.name}{SPIRV}").read_bytes()


def bench_spirv(name: str) -> bytes:
    """The SPIR-V of a shader that only the benchmark runs: `copy`, or a variant with the runtime's mapping."""
    return (shipped_folder() / "bench" / f"{name}{SPIRV}").read_bytes()


def shipped_folder() -> Traversable:
    """Where the compiled shaders are."""
    return resources.files("vkfuse.glsl") / "spirv"


def template_folder() -> Traversable:
    """Where the templates are."""
    return resources.files("vkfuse.glsl") / "shaders"


def _shader(entry: Mapping[str, Any]) -> Shader:
    fields = {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()}
    return Shader(**cast("Any", fields))
