"""Names of a program's tensors as torch can write them in a module's code.

A submodule called `code` or `graph` hides what an fx.GraphModule has by that name, and one called `class` cannot be
written: torch itself does not decompose such a program.
"""

from collections.abc import Collection
from dataclasses import replace
from functools import cache
from keyword import iskeyword
from typing import Any

from torch import fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import ExportGraphSignature

from vkfuse.program.parts import with_parts


def spelled_for_code(exported: ExportedProgram) -> ExportedProgram:
    """`exported` with `_` behind each part of a tensor's name that torch cannot write: `code.weight` is `code_.weight`."""
    names = [*exported.state_dict, *exported.constants]
    taken = {part for name in names for part in name.split(".")}
    spelled = {name: _spelled(name, taken) for name in names}
    if all(name == new for name, new in spelled.items()):
        return exported

    def renamed(spec: Any) -> Any:
        return replace(spec, target=spelled.get(spec.target, spec.target))

    signature = exported.graph_signature
    return with_parts(
        exported,
        graph_signature=ExportGraphSignature(
            input_specs=[*map(renamed, signature.input_specs)],
            output_specs=[*map(renamed, signature.output_specs)],
        ),
        state_dict={spelled[name]: value for name, value in exported.state_dict.items()},
        constants={spelled[name]: value for name, value in exported.constants.items()},
    )


def _spelled(name: str, taken: Collection[str]) -> str:
    first, *others = name.split(".")
    hidden = {first} & _own_names()
    return ".".join(
        _free(part, taken) if part in hidden or iskeyword(part) else part for part in (first, *others)
    )


def _free(part: str, taken: Collection[str]) -> str:
    return part if part not in taken else _free(f"{part}_", taken)


@cache
def _own_names() -> frozenset[str]:
    """What a graph module has that a module has not."""
    return frozenset(dir(fx.GraphModule(nn.Module(), fx.Graph()))) - {*dir(nn.Module())}
