"""4-bit matmuls on dynamically quantized activations (8da4w) as fused ones, on int8 rows that the runtime quantizes."""

import operator
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from vkfuse.rewrite.constants import Constants
from vkfuse.rewrite.decisions import Proposal
from vkfuse.rewrite.rules.matmuls import Fused, computed_in, input_of, pack_of, proposed
from vkfuse.rewrite.sites import Site, Table
from vkfuse.tables.decisions import Refusal
from vkfuse.tables.q4 import Q4Pack, group_sums, linear_scales

if TYPE_CHECKING:
    from vkfuse.rewrite.editor import GraphEditor

torchao = torch.ops.torchao
_CHOICE = ("ASYMMETRIC", torch.int8, -128, 127, None, None)


def propose_dq8ca_linear(site: Site, table: Table, constants: Constants) -> Proposal | Refusal:
    """``et_vk.linear_dq8ca_q4gsw``, or why the operator cannot express this one.

    The activation's zero point multiplies the sums of each group, int32 [groups, outputs], which are stored too.
    """
    x = _quantized_activation(input_of(site))
    if x is None:
        return Refusal(
            code="activations-not-dynamic",
            detail="activations are not quantized to int8 a row at a time",
            beside=True,
        )
    pack = pack_of(site, table)
    if isinstance(pack, Q4Pack) and pack.padded_columns != pack.columns:
        pack = Refusal(
            code="activation-range-padded",
            detail=f"padding {pack.columns} inputs to {pack.padded_columns} with zeros may widen the activation's range",
            hint="use a multiple of 8 input features",
        )

    def fused(pack: Q4Pack) -> Fused:
        scales = linear_scales(pack, computed_in(x.meta["val"].dtype))
        return Fused(
            operator=torch.ops.et_vk.linear_dq8ca_q4gsw.default,
            x=x,
            pack=pack.by_scales(scales),
            stored={"q4": pack.packed, "scales_t": scales, "sums": group_sums(pack)},
            arguments=("q4", "sums", "scales_t"),
            group=(pack.group_size,),
            parameters=partial(_parameters, pack.padded_columns),
        )

    needed = ("torchao.choose_qparams_affine.default",)
    return proposed(site, table, constants, pack, fused, operators=needed)


def _parameters(columns: int, editor: "GraphEditor", rows: fx.Node) -> tuple[Any, ...]:
    """Scale and zero point of each row, chosen once for all matmuls of the same rows."""
    return editor.once(("qparams", rows), lambda: _choose_qparams(editor, rows, columns))  # type: ignore[no-any-return]


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
