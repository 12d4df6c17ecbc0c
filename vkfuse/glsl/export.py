"""Write the shader for others: template and variants for an ExecuTorch tree, SPIR-V and manifest for anything else."""

from collections.abc import Mapping
from pathlib import Path

from vkfuse.errors import OutputError
from vkfuse.glsl.build import Build
from vkfuse.glsl.manifest import (
    MANIFEST,
    SPIRV,
    shipped_folder,
    shipped_manifest,
    shipped_spirv,
    template_folder,
)
from vkfuse.glsl.variants import SHADER, VARIANTS
from vkfuse.output import atomic_file

TREE_FOLDER = Path("backends/vulkan/runtime/graph/ops/glsl")


def export(folder: Path) -> tuple[Path, ...]:
    """Write glsl/, spirv/ and the manifest to `folder`; the paths written. OutputError.

    In an ExecuTorch tree (a folder that has its shaders), only its template and variants are replaced.
    """
    templates = {
        name: (template_folder() / name).read_bytes() for name in (f"{SHADER}.glsl", f"{SHADER}.yaml")
    }
    if (folder / TREE_FOLDER).is_dir():
        return _write(folder / TREE_FOLDER, templates)
    compiled = {f"{variant.name}{SPIRV}": shipped_spirv(variant) for variant in VARIANTS}
    manifest = {MANIFEST: shipped_manifest().dumps().encode()}
    return (
        *_write(folder / "glsl", templates),
        *_write(folder / "spirv", compiled),
        *_write(folder, manifest),
    )


def ship(built: Build) -> tuple[Path, ...]:
    """Put a build into the package, in place of what it ships; for a source checkout."""
    folder = Path(str(shipped_folder()))
    keep = {f"{name}{SPIRV}" for name in built.shaders}
    for path in folder.glob(f"*{SPIRV}"):
        if path.name not in keep:
            path.unlink()
    return (
        *_write(folder, {f"{name}{SPIRV}": spirv for name, spirv in built.shaders.items()}),
        *_write(folder / "bench", {f"{name}{SPIRV}": spirv for name, spirv in built.bench.items()}),
        *_write(folder, {MANIFEST: built.manifest.dumps().encode()}),
    )


def _write(folder: Path, files: Mapping[str, bytes]) -> tuple[Path, ...]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"cannot write to {folder}: {error.strerror}", hint="choose another folder"
        ) from error
    for name, data in files.items():
        with atomic_file(folder / name) as temporary:
            temporary.write_bytes(data)
    return tuple(folder / name for name in files)
