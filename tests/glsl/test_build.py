"""The build: ExecuTorch's generator takes the template, and gives what the package ships."""

import re
import shutil

import pytest

from vkfuse.errors import CheckFailedError
from vkfuse.glsl.build import (
    TREE_FOLDER,
    ShaderBuildError,
    build,
    check_shipped,
    compile_templates,
    differences,
    export,
)
from vkfuse.glsl.manifest import shipped_manifest, shipped_spirv, template_folder
from vkfuse.glsl.variants import VARIANTS

pytestmark = pytest.mark.skipif(
    not (shutil.which("glslc") and shutil.which("spirv-val")),
    reason="glslc and spirv-tools are not installed",
)


@pytest.fixture(scope="module")
def built():
    """One build for all tests."""
    return build()


def test_a_build_gives_what_ships(built):
    """The package's SPIR-V is what its template compiles to; another compiler may differ, and says so."""
    if built.manifest.compiler != shipped_manifest().compiler:
        pytest.skip(f"compiled with {', '.join(shipped_manifest().compiler)}")
    assert differences(built) == []
    assert built.manifest == shipped_manifest()


def test_a_difference_is_named(built):
    """A shader that differs fails the check, with the way to mend it."""
    changed = dict(built.shaders)
    changed[VARIANTS[3].name] += b"\0\0\0\0"
    different = type(built)(
        manifest=built.manifest, shaders=changed, bench=built.bench, sources=built.sources
    )
    with pytest.raises(CheckFailedError, match=VARIANTS[3].name):
        check_shipped(different, shipped_manifest())


def test_the_runtime_would_bind_what_the_manifest_says(built):
    """The registration that ExecuTorch's generator writes has our bindings, and asks for 16-bit storage as we say."""
    entries = re.findall(
        r'vkapi::ShaderInfo\(\s*"(\w+)",.*?\{(.*?)\},\s*\{1, 1, 1\},\s*(\w+),\s*(\w+)',
        built.sources,
        re.DOTALL,
    )
    assert len(entries) == len(VARIANTS)
    variants = {variant.name: variant for variant in VARIANTS}
    for name, layouts, _int16, storage_16bit in entries:
        kinds = re.findall(r"VK_DESCRIPTOR_TYPE_(\w+)", layouts)
        assert tuple(kinds) == variants[name].bindings
        assert (storage_16bit == "true") == variants[name].needs_16bit_storage


def test_the_export_is_a_drop_in(tmp_path):
    """In an ExecuTorch tree the pair replaces upstream's, and compiles there to the same SPIR-V."""
    folder = tmp_path / TREE_FOLDER
    folder.mkdir(parents=True)
    (folder / "embedding_q4gsw.glsl").write_text("upstream's")
    paths = export(tmp_path)
    assert {path.name for path in paths} == {"embedding_q4gsw.glsl", "embedding_q4gsw.yaml"}
    shaders, _ = compile_templates(list(paths))
    assert shaders.keys() == {variant.name for variant in VARIANTS}
    if build().manifest.compiler == shipped_manifest().compiler:
        assert all(shaders[variant.name] == shipped_spirv(variant) for variant in VARIANTS)


def test_the_export_for_others(tmp_path):
    """Elsewhere come template, SPIR-V and manifest."""
    export(tmp_path / "out")
    files = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert len(files) == 2 + len(VARIANTS) + 1
    assert {
        "out/manifest.json",
        "out/glsl/embedding_q4gsw.yaml",
        f"out/spirv/{VARIANTS[0].name}.spv",
    } <= files


def test_a_broken_template_is_an_error(tmp_path):
    """What does not compile is reported with the compiler's words."""
    source = (template_folder() / "embedding_q4gsw.glsl").read_text()
    (tmp_path / "embedding_q4gsw.glsl").write_text(source.replace("out_sizes.x >> 2", "out_sizes.x >>"))
    (tmp_path / "embedding_q4gsw.yaml").write_bytes((template_folder() / "embedding_q4gsw.yaml").read_bytes())
    with pytest.raises(ShaderBuildError, match="does not compile"):
        compile_templates(sorted(tmp_path.iterdir()))
