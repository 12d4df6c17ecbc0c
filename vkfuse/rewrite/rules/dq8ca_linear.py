"""4-bit matmuls on dynamically quantized activations (8da4w) become ``et_vk.linear_dq8ca_q4gsw`` on a 2-D input."""

import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from vkfuse.program.tensors import tensor
from vkfuse.rewrite.constants import Constants
from vkfuse.rewrite.rules.matmuls import bias_of, computed_in, input_of, pack_of, restore_rows, rows_of
from vkfuse.rewrite.sites import Site, Table
from vkfuse.tables.decisions import Refusal, Rung
from vkfuse.tables.floats import Array
from vkfuse.tables.q4 import Q4Pack, group_sums, linear_scales

if TYPE_CHECKING:
    from vkfuse.rewrite.editor import GraphEditor

torchao = torch.ops.torchao
_CHOICE = ("ASYMMETRIC", torch.int8, -128, 127, None, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dq8caLinear:
    """A fused matmul on int8 activations, quantized a row at a time by the runtime.

    `sums` int32 [groups, outputs]: each group's sum of weights, which the activation's zero point multiplies.
    """

    pack: Q4Pack
    scales: Array
    sums: Array
    bias: torch.Tensor | None
    name: str
    how: tuple[str, ...]
    rung: Rung = Rung.Q4
    operators: tuple[str, ...] = ("et_vk.linear_dq8ca_q4gsw.default", "torchao.choose_qparams_affine.default")

    @property
    def constants(self) -> tuple[torch.Tensor, ...]:
        """Packed bytes, transposed scales, group sums and bias."""
        bias = () if self.bias is None else (self.bias,)
        return tensor(self.pack.packed), tensor(self.scales), tensor(self.sums), *bias

    def rebuild(self, low: int, high: int) -> Array:
        """Rows [low, high) of the weight [outputs, inputs], by the scales as they are stored."""
        return self.pack.by_scales(self.scales).rebuild(low, high)

    def rewrite(self, editor: "GraphEditor", site: Site) -> fx.Node:
        """The product, in the shape of the site."""
        x = _quantized_activation(input_of(site))
        if x is None:
            raise ValueError("no dynamically quantized activation")
        rows = rows_of(editor, x, self.pack)
        scale, point = editor.once(
            ("qparams", rows), lambda: _choose_qparams(editor, rows, self.pack.padded_columns)
        )
        out = editor.call(
            torch.ops.et_vk.linear_dq8ca_q4gsw.default,
            rows,
            scale,
            point,
            editor.constant(tensor(self.pack.packed), f"{self.name}.q4"),
            editor.constant(tensor(self.sums), f"{self.name}.sums"),
            editor.constant(tensor(self.scales), f"{self.name}.scales_t"),
            self.pack.group_size,
            None if self.bias is None else editor.constant(self.bias, f"{self.name}.bias"),
        )
        return restore_rows(editor, x, out, self.pack)


def propose_dq8ca_linear(site: Site, table: Table, constants: Constants) -> Dq8caLinear | Refusal:
    """A fused matmul with int8 activations, or why the operator cannot express this one."""
    x = _quantized_activation(input_of(site))
    if x is None:
        return Refusal(
            code="activations-not-dynamic", detail="activations are not quantized to int8 a row at a time"
        )
    pack = pack_of(site, table)
    if isinstance(pack, Refusal):
        return pack
    if pack.padded_columns != pack.columns:
        return Refusal(
            code="activation-range-padded",
            detail=f"padding {pack.columns} inputs to {pack.padded_columns} with zeros may widen the activation's range",
            hint="use a multiple of 8 input features",
        )
    bias = bias_of(site, constants, pack)
    if isinstance(bias, Refusal):
        return bias
    return Dq8caLinear(
        pack=pack,
        scales=linear_scales(pack, computed_in(x.meta["val"].dtype)),
        sums=group_sums(pack),
        bias=bias,
        name=table.name,
        how=(*pack.how, *(("input-flattened",) if x.meta["val"].ndim != 2 else ())),
    )


def _choose_qparams(editor: "GraphEditor", rows: fx.Node, columns: int) -> tuple[Any, Any]:
    chosen = editor.call(
        torchao.choose_qparams_affine.default,
        rows,
        "ASYMMETRIC",
        [1, columns],
        torch.int8,
        -128,
        127,
        None,
        None,
        torch.int8,
    )
    return editor.call(operator.getitem, chosen, 0), editor.call(operator.getitem, chosen, 1)


def _quantized_activation(node: fx.Node) -> fx.Node | None:
    """The float tensor behind ``dequantize(quantize(x, choose_qparams(x)))`` with int8 rows, else None."""
    if node.target != torchao.dequantize_affine.default or not isinstance(node.args[0], fx.Node):
        return None
    quantize = node.args[0]
    if quantize.target != torchao.quantize_affine.default or not isinstance(quantize.args[0], fx.Node):
        return None
    x, scale, point = quantize.args[0], quantize.args[2], quantize.args[3]
    if node.args[2] is not scale or node.args[3] is not point or list(node.args[1]) != list(quantize.args[1]):  # type: ignore[arg-type]
        return None
    chosen = _same_choice(scale, point)
    if chosen is None or chosen.args[0] is not x or list(chosen.args[2]) != list(quantize.args[1]):  # type: ignore[arg-type]
        return None
    if list(chosen.args[2]) != [1] * (x.meta["val"].ndim - 1) + [x.meta["val"].shape[-1]]:  # type: ignore[arg-type]
        return None
    choice = (chosen.args[1], *chosen.args[3:8])
    return x if choice[: len(choice)] == _CHOICE[: len(choice)] and len(choice) >= 4 else None


def _same_choice(scale: object, point: object) -> fx.Node | None:
    """The choose_qparams node whose two results are `scale` and `point`."""
    nodes = [n for n in (scale, point) if isinstance(n, fx.Node) and n.target == operator.getitem]
    if (
        len(nodes) != 2
        or nodes[0].args[0] is not nodes[1].args[0]
        or (nodes[0].args[1], nodes[1].args[1]) != (0, 1)
    ):
        return None
    chosen = nodes[0].args[0]
    known = isinstance(chosen, fx.Node) and chosen.target == torchao.choose_qparams_affine.default
    return chosen if known else None  # type: ignore[return-value]
