"""The lists of each version: where they are from, and that the installed version's are the wheel's."""

import importlib.util
import re
from importlib.metadata import version
from pathlib import Path

from vkfuse.runtime.versions import find_runtime, known_versions

ROOT = Path(__file__).parents[2]
DATA = ROOT / "vkfuse" / "runtime" / "data"
SPEC = importlib.util.spec_from_file_location("make", ROOT / "tools" / "runtime" / "make.py")
make = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(make)


def test_the_installed_runtime_is_the_wheels():
    """Shaders by the wheel's YAML are those of the data, but for what the wheel leaves out."""
    target = find_runtime(version("executorch"))
    assert version("executorch").startswith(target.version)
    assert {n for n in target.shaders if not n.startswith(make.UNSHIPPED)} == make.shaders(make.installed())


def test_every_list_says_where_it_is_from():
    """The first lines name a commit of ExecuTorch's repository or a release of its wheel."""
    for folder in known_versions():
        for path in (DATA / folder).iterdir():
            first = path.read_text("utf-8").partition("\n")[0]
            assert re.match(
                r"# (pytorch/executorch \S+, commit [0-9a-f]{10}|the wheel of executorch [\d.]+):", first
            ), path


def test_a_tree_is_read_as_a_wheel_is(tmp_path):
    """Variants by YAML, shaders without, registered operators and kernels of a source tree."""
    glsl = tmp_path / make.VULKAN / "graph" / "ops" / "glsl"
    impl = tmp_path / make.VULKAN / "graph" / "ops" / "impl"
    kernels, llm = tmp_path / "kernels" / "portable", tmp_path / make.LLM
    for folder in (glsl, impl, kernels, llm):
        folder.mkdir(parents=True)
    (glsl / "add.yaml").write_text(
        "add:\n"
        "  parameter_names_with_default_values: {DTYPE: float, TILE: 1}\n"
        "  generate_variant_forall:\n"
        "    DTYPE: [{VALUE: half}, {VALUE: float}]\n"
        "    TILE: [{RANGE: [1, 2], SUFFIX: t}]\n"
        "  shader_variants:\n"
        "    - NAME: add\n"
        "    - {NAME: add_one, TILE: 3}\n"
    )
    (glsl / "add.glsl").write_text("")
    (glsl / "plain.glsl").write_text("")
    (impl / "Add.cpp").write_text(
        "REGISTER_OPERATORS {\n  VK_REGISTER_OP(\n      aten.add.Tensor, add);\n}\n"
    )
    (kernels / "functions.yaml").write_text("- op: add.out\n- func: prim::x.out(Tensor a) -> Tensor\n")
    (llm / "op.cpp").write_text(
        'EXECUTORCH_LIBRARY(\n    llama,\n    "x.out", x);\nregister_kernel(Kernel(\n    "llama::y.out", y));\n'
    )
    source = make.tree(tmp_path, "a tree")
    tiled = {f"add_{kind}_t_{tile}" for kind in ("half", "float") for tile in (1, 2)}
    assert make.shaders(source) == tiled | {"add_one_half", "add_one_float", "plain"}
    assert make.operators(source) == {"aten.add.Tensor"}
    assert make.kernels(source) == {
        "portable aten::add.out",
        "portable prim::x.out",
        "llm llama::x.out",
        "llm llama::y.out",
    }
