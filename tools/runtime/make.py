"""Write what a version of ExecuTorch's Vulkan runtime has into vkfuse/runtime/data/VERSION.

    python tools/runtime/make.py 1.6.0 --tree ~/executorch        # a source tree
    python tools/runtime/make.py 1.6.0 --git ~/executorch v1.6.0  # a commit of a clone, also a bare one
    python tools/runtime/make.py 1.6.0 --wheel                    # the installed package, over the version before
    python tools/runtime/make.py 1.6.0 --text shaders names.txt   # a list that a running runtime printed

Each list begins with comments that say where it is from. A wheel has the YAML of the shaders and no sources: operators and
kernels are then taken from the newest version before.
"""

import argparse
import re
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version as installed_version
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

import yaml

DATA = Path(__file__).parents[2] / "vkfuse" / "runtime" / "data"
VULKAN = "backends/vulkan/runtime"
KERNELS = {
    "portable": ("kernels/portable/functions.yaml", "kernels/portable/et_copy_ops.yaml"),
    "optimized": ("kernels/optimized/optimized.yaml",),
    "quantized": ("kernels/quantized/quantized.yaml",),
}
PRIMS = "kernels/prim_ops/register_prim_ops.cpp"
LLM = "extension/llm/custom_ops"
_OPERATOR = re.compile(r"VK_REGISTER_OP\(\s*([\w.]+)\s*,")
_PRIM = re.compile(r'"((?:executorch_prim|aten)::[\w.]+)"')
_LIBRARY = re.compile(r'(?:EXECUTORCH_LIBRARY\(\s*|\bKernel\(\s*")(\w+)(?:\s*,\s*"|::)([\w.]+)"')
RULES = "by the rules of gen_vulkan_spv.py"
UNSHIPPED = "no_op_"  # of no_op.yaml, which the wheel leaves out


@dataclass(frozen=True)
class Source:
    """Files of a version: paths, their texts, and in words where they are from."""

    origin: str
    paths: tuple[str, ...]
    read: Callable[[str], str]

    def under(self, folder: str, *suffixes: str) -> Iterator[str]:
        """Yield paths in a folder."""
        yield from (p for p in self.paths if p.startswith(f"{folder}/") and p.endswith(suffixes))


def tree(root: Path, origin: str) -> Source:
    """Files of a folder laid out as ExecuTorch's repository."""
    paths = tuple(sorted(p.relative_to(root).as_posix() for p in (root / VULKAN).rglob("*") if p.is_file()))
    rest = tuple(
        p.relative_to(root).as_posix() for top in ("kernels", LLM) for p in (root / top).rglob("*.*")
    )
    return Source(origin, paths + rest, lambda path: (root / path).read_text("utf-8", "replace"))


def commit(repository: Path, ref: str) -> Source:
    """Files of a commit."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(repository), *arguments]
        return subprocess.run(command, check=True, capture_output=True).stdout.decode("utf-8", "replace")

    sha = git("rev-parse", "--short=10", f"{ref}^{{commit}}").strip()
    paths = tuple(git("ls-tree", "-r", "--name-only", sha, VULKAN, "kernels", LLM).split("\n"))
    name = ref if ref != sha else "main"
    return Source(
        f"pytorch/executorch {name}, commit {sha}", paths, lambda path: git("show", f"{sha}:{path}")
    )


def installed() -> Source:
    """The installed package."""
    spec = find_spec("executorch")
    root = Path(next(iter(spec.submodule_search_locations)))
    return tree(root, f"the wheel of executorch {installed_version('executorch')}")


def shaders(source: Source) -> set[str]:
    """Names of the variants that YAML files describe, and of shaders that have none."""
    described = {
        template: variants
        for path in source.under(f"{VULKAN}/graph/ops/glsl", ".yaml")
        for template, variants in yaml.safe_load(source.read(path)).items()
    }
    plain = {Path(p).stem for p in source.under(f"{VULKAN}/graph/ops/glsl", ".glsl")} - described.keys()
    return plain.union(*(_variants(each) for each in described.values()))


def _variants(described: Mapping[str, Any]) -> Iterator[str]:
    """gen_vulkan_spv.py, parseTemplateYaml: a name and a suffix of each parameter that is iterated."""
    default = described.get("generate_variant_forall")
    for variant in described["shader_variants"]:
        iterated = variant.get("generate_variant_forall", default)
        for suffixes in product(*_suffixes(iterated or {}, variant)):
            yield "_".join((variant["NAME"], *(suffix for suffix in suffixes if suffix)))


def _suffixes(iterated: Mapping[str, Any], variant: Mapping[str, Any]) -> Iterator[list[str]]:
    """gen_vulkan_spv.py, generateVariantCombinations."""
    for name, values in iterated.items():
        if re.fullmatch(r"combination\d*", name):
            yield [_of_combination(combo) for combo in values["combos"]]
        elif name not in variant:
            yield [suffix for value in values for suffix in _of_value(value)]


def _of_combination(combo: Mapping[str, Any]) -> str:
    joined = "_".join(str(value) for value in combo["parameter_values"] if str(value))
    return str(combo.get("suffix", joined))


def _of_value(value: Mapping[str, Any]) -> list[str]:
    if "RANGE" not in value:
        return [str(value.get("SUFFIX", value["VALUE"]))]
    low, high = value["RANGE"]
    prefix = f"{value['SUFFIX']}_" if value.get("SUFFIX") else ""
    return [f"{prefix}{number}" for number in range(low, high + 1)]


def operators(source: Source) -> set[str]:
    """Operators that the runtime registers."""
    return {
        name
        for path in source.under(f"{VULKAN}/graph/ops/impl", ".cpp")
        for name in _OPERATOR.findall(source.read(path))
    }


def kernels(source: Source) -> set[str]:
    """`library operator` of each CPU kernel."""
    found: dict[str, str] = {}
    for library, paths in KERNELS.items():
        for path in set(paths) & set(source.paths):
            for entry in yaml.safe_load(source.read(path)):
                found.setdefault(_kernel(entry), library)
    if PRIMS in source.paths:
        found.update(dict.fromkeys(_PRIM.findall(source.read(PRIMS)), "prim"))
    for path in source.under(LLM, ".cpp"):
        found.update({f"{space}::{name}": "llm" for space, name in _LIBRARY.findall(source.read(path))})
    return {f"{library} {name}" for name, library in found.items()}


def _kernel(entry: Mapping[str, Any]) -> str:
    name = entry["op"] if "op" in entry else entry["func"].partition("(")[0]
    return name if "::" in name else f"aten::{name}"


def write(version: str, kind: str, names: Iterable[str], origin: Iterable[str]) -> None:
    """Write a list, sorted, below where it is from."""
    folder = DATA / version
    folder.mkdir(exist_ok=True)
    lines = [*(f"# {line}" for line in origin), *sorted(names)]
    (folder / f"{kind}.txt").write_text("\n".join(lines) + "\n", "utf-8")


def before(version: str, kind: str) -> tuple[list[str], set[str]]:
    """Comments and names of a list of the newest version before."""
    older = [entry.name for entry in DATA.iterdir() if entry.name[:1].isdigit() and entry.name < version]
    lines = (DATA / max(older) / f"{kind}.txt").read_text("utf-8").splitlines()
    comments = [line.removeprefix("# ") for line in lines if line.startswith("#")]
    return comments, {line for line in lines if not line.startswith("#")}


def from_source(version: str, source: Source) -> None:
    """Write all lists of a source tree."""
    write(version, "shaders", shaders(source), [f"{source.origin}: {VULKAN}/graph/ops/glsl/*.yaml, {RULES}"])
    write(
        version,
        "operators",
        operators(source),
        [f"{source.origin}: VK_REGISTER_OP in {VULKAN}/graph/ops/impl"],
    )
    write(
        version,
        "kernels",
        kernels(source),
        [f"{source.origin}: functions.yaml and the like in kernels/, {LLM}"],
    )


def from_wheel(version: str) -> None:
    """Write the shaders that the wheel describes; the rest as the version before has it."""
    source = installed()
    taken = f"taken for {version}: the wheel has no sources"
    _, known = before(version, "shaders")
    unshipped = {name for name in known if name.startswith(UNSHIPPED)}
    origin = [
        f"{source.origin}: {VULKAN}/graph/ops/glsl/*.yaml, {RULES}",
        f"{UNSHIPPED}*: as the version before",
    ]
    write(version, "shaders", shaders(source) | unshipped, origin)
    for kind in ("operators", "kernels"):
        comments, names = before(version, kind)
        write(version, kind, names, [*comments, taken])


def main() -> None:
    """Read the command line and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("version")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--tree", type=Path, metavar="FOLDER")
    where.add_argument("--git", nargs=2, metavar=("REPOSITORY", "REF"))
    where.add_argument("--wheel", action="store_true")
    where.add_argument("--text", nargs=2, metavar=("KIND", "FILE"))
    given = parser.parse_args()
    if given.tree:
        from_source(given.version, tree(given.tree, f"a source tree of {given.version}"))
    elif given.git:
        from_source(given.version, commit(Path(given.git[0]), given.git[1]))
    elif given.wheel:
        from_wheel(given.version)
    else:
        kind, file = given.text
        names = Path(file).read_text("utf-8").split("\n")
        write(given.version, kind, {n.strip() for n in names if n.strip()}, ["printed by a running runtime"])


if __name__ == "__main__":
    main()
