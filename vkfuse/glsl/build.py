"""Compile the templates with ExecuTorch's own generator and glslc, as an ExecuTorch build does, validate and write them."""

import importlib.util
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from vkfuse.errors import CheckFailedError, MissingPackageError, VkfuseError
from vkfuse.glsl.manifest import (
    MANIFEST,
    SPIRV,
    Manifest,
    bench_spirv,
    manifest_of,
    shipped_folder,
    shipped_manifest,
    shipped_spirv,
    template_folder,
)
from vkfuse.glsl.variants import SHADER, VARIANTS
from vkfuse.output import Publication, reported

GENERATOR = Path("backends/vulkan/runtime/gen_vulkan_spv.py")
TARGET = "vulkan1.1"  # the generator's default, and the runtime's


class ShaderBuildError(VkfuseError):
    """A template does not compile, or compiles to invalid SPIR-V."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """Compiled shaders by name: the variants, and what only the benchmark runs. `sources` is the generator's C++."""

    manifest: Manifest
    shaders: Mapping[str, bytes]
    bench: Mapping[str, bytes]
    sources: str


def build() -> Build:
    """Compile and validate everything. MissingPackageError, ShaderBuildError."""
    templates = Path(str(template_folder()))
    variants = templates / f"{SHADER}.yaml"
    shaders, sources = compile_templates([templates / f"{SHADER}.glsl", variants])
    bench, _ = compile_templates([*(templates / "bench").glob("*.glsl"), variants])
    return Build(manifest=manifest_of(compiler(), shaders), shaders=shaders, bench=bench, sources=sources)


def compile_templates(files: list[Path]) -> tuple[dict[str, bytes], str]:
    """Compile templates with their .yaml of variants: SPIR-V by name, and the C++ that registers it."""
    glslc, generator = tool("glslc", "glslc"), _generator()
    with tempfile.TemporaryDirectory() as folder:
        source, cache, output = (Path(folder, name) for name in ("source", "cache", "output"))
        for path in (source, cache, output):
            path.mkdir()
        for file in files:
            shutil.copy(file, source)
        arguments = ["-i", source, "-c", glslc, "-t", cache, "-o", output, "--optimize", "--nthreads", "2"]
        _run([sys.executable, str(generator), *map(str, arguments)])
        compiled = sorted(output.glob(f"*{SPIRV}"))
        for path in compiled:
            validate(path)
        return {path.stem: path.read_bytes() for path in compiled}, (output / "spv.cpp").read_text()


def validate(path: Path) -> None:
    """Check a SPIR-V file with spirv-val. ShaderBuildError with its message."""
    _run([tool("spirv-val", "spirv-tools"), "--target-env", TARGET, str(path)])


def validate_shipped() -> bool:
    """Check the package's SPIR-V with spirv-val; whether that is installed. ShaderBuildError with its message."""
    if shutil.which("spirv-val") is None:
        return False
    for path in Path(str(shipped_folder())).rglob(f"*{SPIRV}"):
        validate(path)
    return True


def compiler() -> tuple[str, ...]:
    """What compiles here: the lines of `glslc --version` up to the empty one, and the generator's package."""
    text = subprocess.run(  # noqa: S603 - a compiler found on the PATH
        [tool("glslc", "glslc"), "--version"], check=True, capture_output=True, text=True
    ).stdout
    return *text.split("\n\n")[0].splitlines(), f"executorch {metadata.version('executorch')}"


def differences(built: Build) -> list[str]:
    """How a build differs from what the package ships, a line for each shader."""
    shipped = {
        path.name.removesuffix(SPIRV) for path in shipped_folder().iterdir() if path.name.endswith(SPIRV)
    }
    lines = [f"{name}: not built any more" for name in sorted(shipped - built.shaders.keys())]
    for name, spirv in built.shaders.items():
        if name not in shipped:
            lines.append(f"{name}: not in the package")
        elif (shipped_folder() / f"{name}{SPIRV}").read_bytes() != spirv:
            lines.append(f"{name}: differs")
    lines += [f"bench/{name}: differs" for name, spirv in built.bench.items() if bench_spirv(name) != spirv]
    return lines


def check_shipped(built: Build, shipped: Manifest) -> None:
    """CheckFailedError when a build does not give what the package ships."""
    lines = differences(built)
    if not lines:
        return
    same = built.manifest.compiler == shipped.compiler
    hint = (
        "run `vkfuse shader build --write`" if same else f"it was compiled with {', '.join(shipped.compiler)}"
    )
    raise CheckFailedError(
        f"{len(lines)} shaders differ from the package's: {'; '.join(lines[:3])}", hint=hint
    )


def tool(name: str, package: str) -> str:
    """The path of a command line tool. MissingPackageError that names Debian's package."""
    path = shutil.which(name)
    if path is None:
        raise MissingPackageError(f"building shaders needs {name}", hint=f"apt install {package}")
    return path


def _generator() -> Path:
    """ExecuTorch's shader generator; found without importing ExecuTorch, which would import torch."""
    spec = importlib.util.find_spec("executorch")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (Path(folder) / GENERATOR).is_file():
            return Path(folder) / GENERATOR
    raise MissingPackageError("building shaders needs ExecuTorch's generator", hint="pip install executorch")


def _run(command: list[str]) -> None:
    result = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603 - our own arguments
    if result.returncode:
        lines = (result.stderr or result.stdout).strip().splitlines()
        raise ShaderBuildError("a shader does not compile: " + " / ".join(lines[-4:]))


TREE_FOLDER = Path("backends/vulkan/runtime/graph/ops/glsl")


def export(folder: Path) -> tuple[Path, ...]:
    """Write glsl/, spirv/ and the manifest to `folder`; the paths written. OutputError.

    In an ExecuTorch tree (a folder that has its shaders), only its template and variants are replaced.
    """
    templates = {
        name: (template_folder() / name).read_bytes() for name in (f"{SHADER}.glsl", f"{SHADER}.yaml")
    }
    if (folder / TREE_FOLDER).is_dir():
        return _write({folder / TREE_FOLDER: templates})
    compiled = {f"{variant.name}{SPIRV}": shipped_spirv(variant) for variant in VARIANTS}
    manifest = {MANIFEST: shipped_manifest().dumps().encode()}
    return _write({folder / "glsl": templates, folder / "spirv": compiled, folder: manifest})


def ship(built: Build) -> tuple[Path, ...]:
    """Put a build into the package, in place of what it ships; for a source checkout."""
    folder = Path(str(shipped_folder()))
    shaders = {f"{name}{SPIRV}": spirv for name, spirv in built.shaders.items()}
    bench = {f"{name}{SPIRV}": spirv for name, spirv in built.bench.items()}
    manifest = {MANIFEST: built.manifest.dumps().encode()}
    written = _write({folder: shaders | manifest, folder / "bench": bench})
    for path in folder.glob(f"*{SPIRV}"):
        if path.name not in shaders:
            path.unlink()
    return written


def _write(folders: Mapping[Path, Mapping[str, bytes]]) -> tuple[Path, ...]:
    """Write the files of each folder, all or none; their paths."""
    files = {folder / name: data for folder, named in folders.items() for name, data in named.items()}
    for folder in folders:
        with reported(folder):
            folder.mkdir(parents=True, exist_ok=True)
    with Publication() as publication:
        temporaries = {path: publication.file(path) for path in files}
        for path, temporary in temporaries.items():
            with reported(path):
                temporary.write_bytes(files[path])
    return tuple(files)
