"""4-bit matmuls on dynamically quantized activations (8da4w) as fused ones, on int8 rows that the runtime quantizes."""

from functools import partial
from typing import Any

import torch

from vkfuse.rewrite.activations import affine_rounding
from vkfuse.rewrite.constants import Constants
from vkfuse.rewrite.decisions import Proposal
from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.rules.matmuls import Fused, computed_in, input_of, pack_of, proposed
from vkfuse.rewrite.sites import Site, Table
from vkfuse.rewrite.traced import untraced
from vkfuse.runtime.operators.linear import summed_at_once
from vkfuse.tables.decisions import Refusal
from vkfuse.tables.q4 import Q4Pack, group_sums, linear_scales

torchao = torch.ops.torchao
_CHOICE = ("ASYMMETRIC", torch.int8, -128, 127, None, None)


def propose_dq8ca_linear(site: Site, table: Table, constants: Constants) -> Proposal | Refusal:
    """``et_vk.linear_dq8ca_q4gsw``, or why the operator cannot express this one.

    The activation's zero point multiplies the sums of each group, int32 [groups, outputs], which are stored too.
    """
    of = affine_rounding(input_of(site))
    if of is None or not of.of_byte_rows:
        return Refusal(
            code="activations-not-dynamic",
            detail="activations are not quantized to int8 a row at a time",
            beside=True,
        )
    x = of.x
    pack = pack_of(site, table, constants)
    if isinstance(pack, Q4Pack) and pack.padded_columns != pack.columns:
        pack = Refusal(
            code="activation-range-padded",
            detail=f"padding {pack.columns} inputs to {pack.padded_columns} with zeros may widen the activation's range",
            hint="use a multiple of 8 input features",
        )

    if isinstance(pack, Q4Pack):
        pack = pack.in_groups(summed_at_once(pack.group_size))

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


def _parameters(columns: int, editor: GraphEditor, rows: torch.Tensor) -> tuple[Any, ...]:
    """Scale and zero point of each row, chosen once for all matmuls of the same rows."""

    def choose() -> tuple[Any, ...]:
        block, (mapping, *kind) = [1, columns], _CHOICE
        scale, point = torchao.choose_qparams_affine.default(rows, mapping, block, *kind, torch.int8)
        return scale, point

    return editor.once(("qparams", untraced(rows)), choose)  # type: ignore[no-any-return]
