"""The precision that a program computes its outputs in, and a file its float32."""

from typing import Final

import torch
from torch.export import ExportedProgram

from vkfuse.program.widened import HALVES
from vkfuse.pte.enums import VkDataType
from vkfuse.pte.model import PteFile
from vkfuse.pte.vulkan import VkTensor, vulkan_graphs
from vkfuse.rewrite.constants import Constants
from vkfuse.rewrite.moves import MOVES

aten = torch.ops.aten

_UNCHANGED: Final = frozenset(
    {*MOVES, aten.embedding.default, aten.index.Tensor, aten.index_select.default, aten.select.int}
    | {aten.cat.default, aten.where.self, aten.split_with_sizes.default}
)  # every value of the result is one of the operands'


def of_file(pte: PteFile, method: str) -> torch.dtype | None:
    """float16 where the delegates of a method compute float32 in it, as `--fp16` and ExecuTorch's `force_fp16` have it."""
    graphs = (graph for place, graph in vulkan_graphs(pte).items() if place.method == method)
    tensors = (v for graph in graphs for v in graph.values if isinstance(v, VkTensor) and not v.constant)
    kinds = {(each.dtype, each.staging_dtype) for each in tensors}
    return torch.float16 if (VkDataType.FLOAT16, VkDataType.FLOAT32) in kinds else None


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
