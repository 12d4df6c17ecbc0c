"""The precision that a program computes its outputs in."""

from typing import Final

import torch
from torch.export import ExportedProgram

from vkfuse.program.widened import HALVES
from vkfuse.rewrite.constants import Constants
from vkfuse.rewrite.moves import MOVES

aten = torch.ops.aten

_UNCHANGED: Final = frozenset(
    {*MOVES, aten.embedding.default, aten.index.Tensor, aten.index_select.default, aten.select.int}
    | {aten.cat.default, aten.where.self, aten.split_with_sizes.default}
)  # every value of the result is one of the operands'


def coarsest(exported: ExportedProgram) -> tuple[torch.dtype | None, ...]:
    """The half-precision type of fewest digits that each user output is computed in, None where it is in none.

    What is stored or given in half and only taken from there is exact.
    """
    constants, signature = Constants(exported), exported.graph_signature
    state = {
        name
        for name, buffer in signature.inputs_to_buffers.items()
        if buffer in {*signature.buffers_to_mutate.values()}
    }
    found: dict[str, torch.dtype] = {}
    for node in exported.graph.nodes:
        own = node.name in state if node.op == "placeholder" else node.target not in _UNCHANGED
        kinds = {found[each.name] for each in node.all_input_nodes if each.name in found}
        if own and node not in constants:
            kinds |= HALVES & {getattr(node.meta.get("val"), "dtype", None)}
        if kinds:
            found[node.name] = min(kinds, key=lambda kind: -torch.finfo(kind).eps)
    return tuple(found.get(str(name)) for name in signature.user_outputs)
