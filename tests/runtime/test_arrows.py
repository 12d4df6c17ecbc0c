"""The arrows of ARCHITECTURE.md: who may import whom, and that an operator's name stands in its record."""

import ast
from pathlib import Path

import pytest

from vkfuse.runtime.kernels import KERNELS
from vkfuse.runtime.operators import OPERATORS

PACKAGE = Path(__file__).parents[2] / "vkfuse"
SOURCES = {
    path.relative_to(PACKAGE).with_suffix("").as_posix(): ast.parse(path.read_text("utf-8"))
    for path in PACKAGE.rglob("*.py")
}
GROUND = {
    "errors",
    "mapping",
    "multiples",
    "pages",
    "quiet",
    "signals",
    "streams",
    "quantities",
    "typed",
    "lossy",
}  # what any may import
# Each may import those that it names, the ground, and itself. What is not here puts the others together.
ARROWS = {
    "output": set(),
    "program": {"pte", "runtime", "tables"},
    "glsl": {"output"},
    "pte": set(),
    "runtime": {"pte", "glsl"},
    "gates": set(),
    "settings": {"gates"},
    "options": {"gates", "runtime"},
    "lint": {"pte", "runtime"},
    "tables": {"options", "pte", "runtime"},
    "measure": {"pte", "runtime", "glsl", "lint", "tables"},
    "report": {"gates", "pte", "runtime", "lint", "tables", "measure", "__version__"},
    "provenance": {"options", "report", "runtime", "__version__"},
    "entries": {"options", "output", "provenance"},
    "runs": {"entries", "options", "output", "provenance", "pte", "report"},
    "patch": {
        *("options", "output", "pte", "runtime", "lint", "measure", "report", "tables"),
        "provenance",
    },
    "rewrite": {"options", "program", "pte", "runtime", "tables"},
    "lower": {"options", "program", "pte", "runtime", "glsl", "lint"},
    "verify": {
        "errors",
        "program",
        "pte",
        "runtime",
        "glsl",
        "lint",
        "measure",
        "report",
        "rewrite",
        "tables",
        "__version__",
    },
    "pipeline": {
        "options",
        "output",
        "program",
        "pte",
        "runtime",
        "measure",
        "patch",
        "report",
        "rewrite",
        "lower",
        "tables",
        "verify",
        "provenance",
        "entries",
        "runs",
    },
}
NARROW = {  # of a package, the only modules that another may import
    ("runtime", "pte"): {"vkfuse.pte.enums"},
    ("program", "pte"): {"vkfuse.pte.enums", "vkfuse.pte.kinds"},
    ("program", "tables"): {"vkfuse.tables.floats"},
    ("tables", "pte"): {"vkfuse.pte.enums"},
    ("rewrite", "pte"): {"vkfuse.pte.enums"},
    ("runtime", "glsl"): {"vkfuse.glsl.variants", "vkfuse.glsl.geometry"},
    ("measure", "lint"): {"vkfuse.lint.operands"},
    ("report", "tables"): {"vkfuse.tables.proven"},
}
WITHOUT_TORCH = {
    *GROUND,
    "gates",
    "settings",
    "output",
    "glsl",
    "pte",
    "runtime",
    "options",
    "lint",
    "measure",
    "report",
    "tables",
    "patch",
    "entries",
    "runs",
}
RUNS_EXECUTORCH = {"verify/foreign", "verify/device_process"}  # the installed one, on a file
NAMED_BY = {  # files that may name operators of the runtime, and why
    "patch": "the operators that an edited file calls",
    "rewrite/rules": "a rule names the operator that it writes",
    "rewrite/repairs": "a repair names the operator that it replaces",
    "verify/vulkan/table": "verify's kernels",
    "verify/vulkan/symbolic": "verify's kernels",
    "verify/reference": "kernels of the program, in the runtime's arithmetic",
    "verify/rowwise": "kernels of the program, row by row",
}


def _imports(tree):
    """Yield the modules of the package, and the others, that a file imports, wherever it does."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"vkfuse.{n.name}" for n in node.names] if node.module == "vkfuse" else [node.module]
            yield from names
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names)


@pytest.mark.parametrize("package", sorted(ARROWS))
def test_arrows(package):
    """A package imports only those that it may, and torch and ExecuTorch only where they belong."""
    for place, tree in SOURCES.items():
        if place.split("/")[0] != package:
            continue
        for module in _imports(tree):
            top, _, rest = module.partition(".")
            if top in {"torch", "executorch", "torchao"}:
                assert package not in WITHOUT_TORCH, (place, module)
                assert top != "executorch" or package in {"lower", "program"} or place in RUNS_EXECUTORCH, (
                    place
                )
            other = rest.split(".")[0]
            if top == "vkfuse" and other != package:
                assert other in ARROWS[package] | GROUND, (place, module)
                assert module in NARROW.get((package, other), {module}), (place, module)


def test_an_operator_is_named_in_its_record():
    """No other file of the package has the name of an operator that a record is about, but those with a reason."""
    named = {}
    for place, tree in SOURCES.items():
        texts = {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
        found = {
            t for t in texts if "." in t and (t in OPERATORS or ("::" in t and t.split(".")[0] in KERNELS))
        }
        if found and not place.startswith("runtime/operators/"):
            named[place] = found
    assert [place for place in named if not place.startswith(tuple(NAMED_BY))] == []
    assert [
        place for place in NAMED_BY if not any(n.startswith(place) for n in named) and "repairs" not in place
    ] == []


def test_no_operator_has_two_records_of_one_version():
    """Records of a name follow each other: each version has one."""
    for name, records in OPERATORS.items():
        for version in ((1, 0, 1), (1, 4, 1), (1, 5, 0), (1, 5, 1), (9, 0, 0)):
            assert sum(record.since <= version <= record.until for record in records) == 1, (name, version)
