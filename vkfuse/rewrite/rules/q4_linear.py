"""Weight-only 4-bit matmuls become ``et_vk.linear_q4gsw`` on a 2-D input."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import fx

from vkfuse.program.tensors import tensor
from vkfuse.rewrite.constants import Constants
from vkfuse.rewrite.rules.matmuls import (
    activations,
    bias_of,
    flattened,
    input_of,
    pack_of,
    restore_rows,
    rows_of,
)
from vkfuse.rewrite.sites import Site, Table
from vkfuse.tables.decisions import Refusal, Rung
from vkfuse.tables.floats import Array
from vkfuse.tables.q4 import Q4Pack, linear_scales

if TYPE_CHECKING:
    from vkfuse.rewrite.editor import GraphEditor


@dataclass(frozen=True, slots=True, kw_only=True)
class Q4Linear:
    """A fused matmul: 4-bit pack shared with a tied lookup, scales [groups, outputs] of the activation's dtype."""

    pack: Q4Pack
    scales: Array
    bias: torch.Tensor | None
    name: str
    how: tuple[str, ...]
    rung: Rung = Rung.Q4
    operators: tuple[str, ...] = ("et_vk.linear_q4gsw.default",)

    @property
    def constants(self) -> tuple[torch.Tensor, ...]:
        """Packed bytes, transposed scales and bias."""
        bias = () if self.bias is None else (self.bias,)
        return tensor(self.pack.packed), tensor(self.scales), *bias

    def rebuild(self, low: int, high: int) -> Array:
        """Rows [low, high) of the weight [outputs, inputs], by the scales as they are stored."""
        return self.pack.by_scales(self.scales).rebuild(low, high)

    def rewrite(self, editor: "GraphEditor", site: Site) -> fx.Node:
        """The product, in the shape of the site."""
        x = input_of(site)
        rows = rows_of(editor, x, self.pack)
        weight = editor.constant(tensor(self.pack.packed), f"{self.name}.q4")
        scales = editor.constant(tensor(self.scales), f"{self.name}.scales_t")
        bias = None if self.bias is None else editor.constant(self.bias, f"{self.name}.bias")
        out = editor.call(
            torch.ops.et_vk.linear_q4gsw.default, rows, weight, scales, self.pack.group_size, bias
        )
        return restore_rows(editor, x, out, self.pack)


def propose_q4_linear(site: Site, table: Table, constants: Constants) -> Q4Linear | Refusal:
    """A fused weight-only matmul, or why the operator cannot express this one."""
    pack = pack_of(site, table)
    if isinstance(pack, Refusal):
        return pack
    bias = bias_of(site, constants, pack)
    if isinstance(bias, Refusal):
        return bias
    return Q4Linear(
        pack=pack,
        scales=linear_scales(pack, activations(site)),
        bias=bias,
        name=table.name,
        how=(*pack.how, *flattened(site)),
    )
