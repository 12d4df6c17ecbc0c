"""Lookups in a table that four bits cannot hold: gather the integer rows, dequantize only what was gathered."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from vkfuse.program.tensors import TORCH_TYPES, tensor
from vkfuse.pte.enums import ScalarType
from vkfuse.rewrite.constants import Constants
from vkfuse.rewrite.rules.lookups import flat_indices, restore_shape, steps
from vkfuse.rewrite.sites import Site, Table
from vkfuse.tables.byte_rows import ByteRows, byte_rows
from vkfuse.tables.decisions import Refusal, Rung
from vkfuse.tables.floats import Array

if TYPE_CHECKING:
    from vkfuse.rewrite.editor import GraphEditor

aten = torch.ops.aten


@dataclass(frozen=True, slots=True, kw_only=True)
class GatheredRows:
    """One byte a weight, gathered on the CPU; what is gathered is dequantized as the program does."""

    table: ByteRows
    name: str
    how: tuple[str, ...]
    rung: Rung = Rung.GATHERED
    operators: tuple[str, ...] = ()

    @property
    def constants(self) -> tuple[torch.Tensor, ...]:
        """Values, scales and, where not all zero, zero points."""
        return tuple(tensor(part) for part in self.table.arrays)

    def rebuild(self, low: int, high: int) -> Array:
        """Rows [low, high) of the table, [high - low, columns]."""
        return self.table.rebuild(low, high)

    def rewrite(self, editor: "GraphEditor", site: Site) -> fx.Node:
        """Rows for each index, in the shape and dtype of the site."""
        table = self.table
        count, columns = table.values.shape
        indices = flat_indices(editor, site, count)

        def gathered(value: Array, suffix: str) -> Any:
            stored = editor.constant(tensor(value), f"{self.name}.{suffix}")
            return editor.call(aten.embedding.default, stored, indices)

        rows = gathered(table.values, "int8")
        rows = editor.call(aten._to_copy.default, rows, dtype=torch.float32)  # noqa: SLF001 - the operator's name
        rows = editor.call(aten.reshape.default, rows, [-1, table.scales.shape[1], table.group_size])
        if table.zero_points is not None:
            points = gathered(table.zero_points, "zero_points")
            rows = editor.call(aten.sub.Tensor, rows, self._last_dim(editor, points))
        rows = editor.call(aten.mul.Tensor, rows, self._last_dim(editor, gathered(table.scales, "scales")))
        rows = editor.call(aten.reshape.default, rows, [-1, columns])
        if table.dtype is not ScalarType.FLOAT:
            dtype = TORCH_TYPES[table.dtype]
            rows = editor.call(aten._to_copy.default, rows, dtype=dtype)  # noqa: SLF001 - the operator's name
        return restore_shape(editor, site, rows, columns)

    @staticmethod
    def _last_dim(editor: "GraphEditor", node: fx.Node) -> fx.Node:
        return editor.call(aten.unsqueeze.default, node, -1)


def propose_gathered_rows(site: Site, table: Table, constants: Constants) -> GatheredRows | Refusal:
    """Integer rows gathered first, or why that cannot be."""
    del constants
    grid = site.numbers()
    rows = byte_rows(grid)
    found = ("grid-found",) if grid.found else ()
    if isinstance(rows, Refusal):
        return rows
    return GatheredRows(table=rows, name=table.name, how=(*found, *steps(site)))
