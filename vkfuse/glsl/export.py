"""Write the shader for others: template and variants for an ExecuTorch tree, SPIR-V and manifest for anything else."""

from collections.abc import Mapping
from pathlib import Path

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
from vkfuse.output import Publication, reported

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
