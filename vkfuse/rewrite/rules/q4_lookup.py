"""Lookups in a 4-bit table become ``et_vk.embedding_q4gsw`` on flattened indices."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import fx

from vkfuse.program.tensors import TORCH_TYPES, tensor
from vkfuse.pte.enums import ScalarType
from vkfuse.rewrite.constants import Constants
from vkfuse.rewrite.rules.lookups import flat_indices, restore_shape, steps
from vkfuse.rewrite.sites import Site, Table
from vkfuse.tables.decisions import Refusal, Rung
from vkfuse.tables.floats import Array
from vkfuse.tables.q4 import Q4Pack, lookup_pack

if TYPE_CHECKING:
    from vkfuse.rewrite.editor import GraphEditor

aten = torch.ops.aten


@dataclass(frozen=True, slots=True, kw_only=True)
class Q4Lookup:
    """A fused lookup: 4-bit pack, flattened indices, columns sliced and cast back where needed."""

    pack: Q4Pack
    name: str
    how: tuple[str, ...]
    rung: Rung = Rung.Q4
    operators: tuple[str, ...] = ("et_vk.embedding_q4gsw.default",)

    @property
    def constants(self) -> tuple[torch.Tensor, ...]:
        """Packed bytes and scales."""
        return tensor(self.pack.packed), tensor(self.pack.scales)

    def rebuild(self, low: int, high: int) -> Array:
        """Rows [low, high) of the table, [high - low, columns]."""
        return self.pack.rebuild(low, high)

    def rewrite(self, editor: "GraphEditor", site: Site) -> fx.Node:
        """Rows for each index, in the shape and dtype of the site."""
        pack = self.pack
        weight = editor.constant(tensor(pack.packed), f"{self.name}.q4")
        scales = editor.constant(tensor(pack.scales), f"{self.name}.scales")
        indices = flat_indices(editor, site, pack.rows)
        rows = editor.call(
            torch.ops.et_vk.embedding_q4gsw.default,
            weight,
            scales,
            pack.group_size,
            indices,
            pack.is_linear_weight,
        )
        if pack.columns != pack.padded_columns:
            rows = editor.call(aten.slice.Tensor, rows, 1, 0, pack.columns)
        if pack.dtype is not ScalarType.FLOAT:
            dtype = TORCH_TYPES[pack.dtype]
            rows = editor.call(aten._to_copy.default, rows, dtype=dtype)  # noqa: SLF001 - the operator's name
        return restore_shape(editor, site, rows, pack.columns)


def propose_q4_lookup(site: Site, table: Table, constants: Constants) -> Q4Lookup | Refusal:
    """A fused lookup, or why the operator cannot express this table."""
    del constants
    if site.lookups().meta["val"].numel() == 0:
        return Refusal(code="no-indices", detail="the index tensor is empty by its shape")
    pack = lookup_pack(site.numbers(), table.readers)
    if isinstance(pack, Refusal):
        return pack
    return Q4Lookup(pack=pack, name=table.name, how=(*pack.how, *steps(site)))
