"""A dequantized table that is never whole: rows are computed when a lookup or a linear needs them.

A 4-bit table of 128256 x 2048 is 131 MB; as float32 it would be 1 GB.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch.nn import functional

from vkfuse.verify.bounds import BLOCK_VALUES

_LAZY_FROM: Final = 1 << 22  # values; smaller tables are dequantized at once


@dataclass(frozen=True, slots=True, kw_only=True)
class RowTable:
    """`dequantize_affine` with a scale of its own for each row, not computed yet."""

    values: torch.Tensor
    scales: torch.Tensor
    zeros: torch.Tensor | None
    block: tuple[int, ...]
    rest: tuple[Any, ...]
    named: tuple[tuple[str, Any], ...]

    @staticmethod
    def call(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return what an operator makes of a table, or a table; NotImplemented where all of it is needed."""
        if name == "torchao.dequantize_affine.default":
            return _table(args, kwargs)
        if any(isinstance(argument, RowTable) for argument in args) and name in _READERS:
            return _READERS[name](*args, **kwargs)
        return NotImplemented

    def rows(self, selected: torch.Tensor | slice) -> torch.Tensor:
        """Dequantize some rows."""
        zeros = None if self.zeros is None else self.zeros[selected]
        result: torch.Tensor = torch.ops.torchao.dequantize_affine.default(
            self.values[selected],
            list(self.block),
            self.scales[selected],
            zeros,
            *self.rest,
            **dict(self.named),
        )
        return result

    def blocks(self) -> Iterator[torch.Tensor]:
        """Yield all rows, a bounded number of values at a time."""
        step = max(1, BLOCK_VALUES // max(1, self.values.shape[1]))
        for start in range(0, self.values.shape[0], step):
            yield self.rows(slice(start, start + step))

    def whole(self) -> torch.Tensor:
        """Dequantize all rows."""
        return self.rows(slice(None))


def _table(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return a table for a large constant with per-row scales."""
    if len(args) < 4 or not isinstance(args[0], torch.Tensor) or not isinstance(args[2], torch.Tensor):
        return NotImplemented
    values, block, scales, zeros, *rest = args
    own_rows = all(part is None or part.shape[:1] == values.shape[:1] for part in (scales, zeros))
    if values.dim() != 2 or values.numel() < _LAZY_FROM or block[0] != 1 or not own_rows:
        return NotImplemented
    return RowTable(
        values=values,
        scales=scales,
        zeros=zeros,
        block=tuple(block),
        rest=tuple(rest),
        named=tuple(kwargs.items()),
    )


def _embedding(table: RowTable, indices: torch.Tensor, *rest: Any, **named: Any) -> torch.Tensor:
    del rest, named
    distinct, places = torch.unique(indices, return_inverse=True)
    return table.rows(distinct)[places]


def _linear(x: Any, table: Any, bias: torch.Tensor | None = None) -> Any:
    if not isinstance(table, RowTable) or isinstance(x, RowTable):
        return NotImplemented
    out = x.new_empty((*x.shape[:-1], table.values.shape[0]))
    start = 0
    for rows in table.blocks():
        out[..., start : start + rows.shape[0]] = functional.linear(x, rows)
        start += rows.shape[0]
    return out if bias is None else out + bias


_READERS: Final[dict[str, Callable[..., Any]]] = {
    "aten.embedding.default": _embedding,
    "aten.linear.default": _linear,
}
