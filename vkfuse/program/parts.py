"""The parts of an exported program: what its placeholders stand for, and the program with others in their place."""

from collections.abc import Mapping
from typing import Any, Final

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import ExportGraphSignature

_PARTS: Final = (
    *("graph", "graph_signature", "state_dict", "range_constraints", "module_call_graph", "example_inputs"),
    *("constants", "verifiers"),
)


def with_parts(exported: ExportedProgram, **parts: Any) -> ExportedProgram:
    """`exported` with some of what `ExportedProgram` takes replaced, as `dataclasses.replace` does for dataclasses."""
    own = {"root": exported.graph_module, **{name: getattr(exported, name) for name in _PARTS}}
    return ExportedProgram(**own | parts)


def stored_targets(signature: ExportGraphSignature) -> dict[str, str]:
    """What parameters, buffers and lifted constants are called, by the placeholders that stand for them."""
    return {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }


def constants_of(exported: ExportedProgram) -> Mapping[str, torch.Tensor]:
    """Placeholder name -> tensor, for each parameter, buffer and lifted constant of `exported`."""
    found = {}
    for placeholder, target in stored_targets(exported.graph_signature).items():
        value = exported.state_dict.get(target, exported.constants.get(target))
        if isinstance(value, torch.Tensor):
            found[placeholder] = value
    return found
