"""Turn torchao operators that stayed in the graph into the arithmetic that defines them.

No ExecuTorch runtime has a kernel for ``torchao.quantize_affine`` or ``torchao.dequantize_affine``, and
``torchao.choose_qparams_affine`` exists only beside the fused linear.
"""

import torch
from torch import fx
from torch.export import ExportedProgram, default_decompositions

from vkfuse.rewrite.repairs.notes import Repair, Repairs


def decompose_affine(exported: ExportedProgram) -> Repairs:
    """Decompose torchao's quantization operators unless a fused linear reads them."""
    torchao = torch.ops.torchao
    operators = (
        *(torchao.quantize_affine.default, torchao.dequantize_affine.default),
        torchao.choose_qparams_affine.default,
    )
    left = [n for n in exported.graph.nodes if n.target in operators and not _feeds_fused_linear(n)]
    if not left:
        return exported, ()
    table = default_decompositions()
    result = exported.run_decompositions({op: table[op] for op in {n.target for n in left}})
    detail = f"{len(left)} torchao operators written as arithmetic"
    return result, (Repair(code="affine-decomposed", nodes=tuple(n.name for n in left), detail=detail),)


def _feeds_fused_linear(node: fx.Node) -> bool:
    fused = torch.ops.et_vk.linear_dq8ca_q4gsw.default
    return any(reader.target == fused for result in node.users for reader in result.users)
