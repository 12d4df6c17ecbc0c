"""Lookups in a table that four bits cannot hold: gather the integer rows, dequantize only what was gathered."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from vkfuse.rewrite.constants import Constants
from vkfuse.rewrite.decisions import Refusal, Rung
from vkfuse.rewrite.rules.lookups import flat_indices, restore_shape, steps
from vkfuse.rewrite.survey import Site, Table

if TYPE_CHECKING:
    from vkfuse.rewrite.editor import GraphEditor

aten = torch.ops.aten


@dataclass(frozen=True, slots=True, kw_only=True)
class GatheredRows:
    """One byte a weight: `values` int8 or uint8 [rows, columns], `scales` and `zero_points` [rows, groups].

    The rows are gathered on the CPU; the arithmetic after is the program's own, ``(values - zero_points) * scales``.
    """

    values: torch.Tensor
    scales: torch.Tensor
    zero_points: torch.Tensor | None
    group_size: int
    dtype: torch.dtype
    name: str
    how: tuple[str, ...]
    rung: Rung = Rung.GATHERED
    operators: tuple[str, ...] = ()

    @property
    def constants(self) -> tuple[torch.Tensor, ...]:
        """Values, scales and, where not all zero, zero points."""
        points = () if self.zero_points is None else (self.zero_points,)
        return self.values, self.scales, *points

    def rebuild(self, low: int, high: int) -> torch.Tensor:
        """Rows [low, high) of the table, [high - low, columns]."""
        rows = self.values[low:high].float().reshape(-1, self.scales.shape[1], self.group_size)
        if self.zero_points is not None:
            rows = rows - self.zero_points[low:high].unsqueeze(-1)
        return (rows * self.scales[low:high].unsqueeze(-1)).reshape(-1, self.values.shape[1]).to(self.dtype)

    def rewrite(self, editor: "GraphEditor", site: Site) -> fx.Node:
        """Rows for each index, in the shape and dtype of the site."""
        columns = self.values.shape[1]
        indices = flat_indices(editor, site, self.values.shape[0])

        def gathered(value: torch.Tensor, suffix: str) -> Any:
            return editor.call(
                aten.embedding.default, editor.constant(value, f"{self.name}.{suffix}"), indices
            )

        rows = gathered(self.values, "int8")
        rows = editor.call(aten._to_copy.default, rows, dtype=torch.float32)  # noqa: SLF001 - the operator's name
        rows = editor.call(aten.reshape.default, rows, [-1, self.scales.shape[1], self.group_size])
        if self.zero_points is not None:
            rows = editor.call(
                aten.sub.Tensor, rows, self._last_dim(editor, gathered(self.zero_points, "zero_points"))
            )
        rows = editor.call(aten.mul.Tensor, rows, self._last_dim(editor, gathered(self.scales, "scales")))
        rows = editor.call(aten.reshape.default, rows, [-1, columns])
        if self.dtype != torch.float32:
            rows = editor.call(aten._to_copy.default, rows, dtype=self.dtype)  # noqa: SLF001 - the operator's name
        return restore_shape(editor, site, rows, columns)

    @staticmethod
    def _last_dim(editor: "GraphEditor", node: fx.Node) -> fx.Node:
        return editor.call(aten.unsqueeze.default, node, -1)


def propose_gathered_rows(site: Site, table: Table, constants: Constants) -> GatheredRows | Refusal:
    """Integer rows gathered first, or why that cannot be."""
    del constants
    grid = site.numbers()
    if grid.values.dtype not in {torch.int8, torch.uint8}:
        return Refusal(code="values-wider-than-a-byte", detail=f"values are {grid.values.dtype}")
    points = grid.zero_points if grid.zero_points is not None and bool(grid.zero_points.any()) else None
    return GatheredRows(
        values=grid.values,
        scales=grid.scales.float(),
        zero_points=None if points is None else points.float(),
        group_size=grid.group_size,
        dtype=grid.dtype,
        name=table.name,
        how=steps(site),
    )
