"""Weight-only 4-bit matmuls become ``et_vk.linear_q4gsw`` on a 2-D input."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import fx

from vkfuse.rewrite.constants import Constants
from vkfuse.rewrite.decisions import Refusal, Rung
from vkfuse.rewrite.packing.groups import SHADER_VECTOR
from vkfuse.rewrite.rules.matmuls import bias_of, float_dtype, input_of, restore_rows, rows_of
from vkfuse.rewrite.rules.q4_pack import LINEAR_COLUMNS, LOOKUP_COLUMNS, Q4Pack, q4_pack
from vkfuse.rewrite.survey import Consumer, Site, Table

if TYPE_CHECKING:
    from vkfuse.rewrite.editor import GraphEditor


@dataclass(frozen=True, slots=True, kw_only=True)
class Q4Linear:
    """A fused matmul: 4-bit pack shared with a tied lookup, scales [groups, outputs] of the activation's dtype."""

    pack: Q4Pack
    scales: torch.Tensor
    bias: torch.Tensor | None
    name: str
    how: tuple[str, ...]
    rung: Rung = Rung.Q4
    operators: tuple[str, ...] = ("et_vk.linear_q4gsw.default",)

    @property
    def constants(self) -> tuple[torch.Tensor, ...]:
        """Packed bytes, transposed scales and bias."""
        bias = () if self.bias is None else (self.bias,)
        return self.pack.packed, self.scales, *bias

    def rebuild(self, low: int, high: int) -> torch.Tensor:
        """Rows [low, high) of the weight [outputs, inputs], by the scales as they are stored."""
        return replace(self.pack, scales=self.scales.t()).rebuild(low, high)

    def rewrite(self, editor: "GraphEditor", site: Site) -> fx.Node:
        """The product, in the shape of the site."""
        x = input_of(site)
        rows = rows_of(editor, x, self.pack)
        weight = editor.constant(self.pack.packed, f"{self.name}.q4")
        scales = editor.constant(self.scales, f"{self.name}.scales_t")
        bias = None if self.bias is None else editor.constant(self.bias, f"{self.name}.bias")
        out = editor.call(
            torch.ops.et_vk.linear_q4gsw.default, rows, weight, scales, self.pack.group_size, bias
        )
        return restore_rows(editor, x, out, self.pack)


def propose_q4_linear(site: Site, table: Table, constants: Constants) -> Q4Linear | Refusal:
    """A fused weight-only matmul, or why the operator cannot express this one."""
    pack = linear_pack(site, table)
    if isinstance(pack, Refusal):
        return pack
    bias = bias_of(site, constants, pack)
    if isinstance(bias, Refusal):
        return bias
    dtype = float_dtype(site)
    return Q4Linear(
        pack=pack,
        scales=pack.scales.to(dtype).t().contiguous(),
        bias=bias,
        name=table.name,
        how=(*pack.how, *_flattened(site)),
    )


def linear_pack(site: Site, table: Table) -> Q4Pack | Refusal:
    """The pack for a matmul, of the tied lookup's shape where there is one, so that both store the same bytes."""
    grid = site.numbers()
    x = input_of(site).meta["val"]
    if any(size == 0 for size in x.shape if isinstance(size, int)):
        return Refusal(code="no-rows", detail="the input is empty by its shape")
    if x.dtype not in {torch.float32, torch.float16}:
        return Refusal(
            code="activation-dtype",
            detail=f"activations are {x.dtype}, which Vulkan has not",
            hint="export in float32 or float16",
        )
    if grid.columns % SHADER_VECTOR:
        return Refusal(
            code="inputs-not-multiple-of-4",
            detail=f"{grid.columns} input features: the runtime reads four at a time",
            hint="pad the layer's in_features to a multiple of 4",
        )
    if grid.scales.dtype != x.dtype and not torch.equal(
        grid.scales.to(x.dtype).to(grid.scales.dtype), grid.scales
    ):
        return Refusal(
            code="scale-dtype",
            detail=f"{grid.scales.dtype} scales with {x.dtype} activations: the runtime has no such shader",
            hint=f"quantize with scales in {x.dtype}",
        )
    tied = Consumer.GATHER in table.consumers
    return q4_pack(grid, table, columns_multiple=LOOKUP_COLUMNS if tied else LINEAR_COLUMNS)


def _flattened(site: Site) -> tuple[str, ...]:
    return ("input-flattened",) if input_of(site).meta["val"].ndim != 2 else ()
