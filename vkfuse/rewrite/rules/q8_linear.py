"""Matmuls with 8-bit weights and one scale for each output become ``et_vk.linear_q8csw`` on a 2-D input."""

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
    no_rows,
    restore_rows,
    rows_of,
)
from vkfuse.rewrite.sites import Site, Table
from vkfuse.tables.decisions import Refusal, Rung
from vkfuse.tables.floats import Array
from vkfuse.tables.q8 import Q8Pack, q8_pack

if TYPE_CHECKING:
    from vkfuse.rewrite.editor import GraphEditor


@dataclass(frozen=True, slots=True, kw_only=True)
class Q8Linear:
    """A fused matmul with one byte a weight; `bias` [padded rows]."""

    pack: Q8Pack
    bias: torch.Tensor | None
    name: str
    how: tuple[str, ...]
    rung: Rung = Rung.Q8
    operators: tuple[str, ...] = ("et_vk.linear_q8csw.default",)

    @property
    def constants(self) -> tuple[torch.Tensor, ...]:
        """Values, scales and bias."""
        bias = () if self.bias is None else (self.bias,)
        return tensor(self.pack.values), tensor(self.pack.scales), *bias

    def rebuild(self, low: int, high: int) -> Array:
        """Rows [low, high) of the weight [outputs, inputs], by the scales as they are stored."""
        return self.pack.rebuild(low, high)

    def rewrite(self, editor: "GraphEditor", site: Site) -> fx.Node:
        """The product, in the shape of the site."""
        x = input_of(site)
        out = editor.call(
            torch.ops.et_vk.linear_q8csw.default,
            rows_of(editor, x, self.pack),
            editor.constant(tensor(self.pack.values), f"{self.name}.q8"),
            editor.constant(tensor(self.pack.scales), f"{self.name}.scales"),
            None if self.bias is None else editor.constant(self.bias, f"{self.name}.bias"),
        )
        return restore_rows(editor, x, out, self.pack)


def propose_q8_linear(site: Site, table: Table, constants: Constants) -> Q8Linear | Refusal:
    """A fused matmul with one byte a weight, or why the operator cannot express this one."""
    pack = no_rows(site) or q8_pack(site.numbers(), activations(site))
    if isinstance(pack, Refusal):
        return pack
    bias = bias_of(site, constants, pack)
    if isinstance(bias, Refusal):
        return bias
    return Q8Linear(pack=pack, bias=bias, name=table.name, how=(*pack.how, *flattened(site)))
