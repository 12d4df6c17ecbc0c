"""A dequantized table that is never whole: rows are computed when a lookup or a linear needs them.

A 4-bit table of 128256 x 2048 is 131 MB; as float32 it would be 1 GB.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import torch
from torch.nn import functional

from vkfuse.verify.bounds import BLOCK_VALUES

_LAZY_FROM: Final = 1 << 16  # values; smaller tables are dequantized at once
_LATER_FROM: Final = 1 << 23  # values; smaller products are not worth dequantizing a table again for
_ROWS: Final = 64  # of each of several products at a time
_FEWEST: Final = 4  # rows of a product
_FLOAT: Final = torch.float32


@dataclass(frozen=True, slots=True, kw_only=True)
class RowTable:
    """`dequantize_affine` with a scale of its own for each row, not computed yet.

    `in_floats`: all of it is computed in float32, where results may take the place of operands.
    """

    values: torch.Tensor
    scales: torch.Tensor
    zeros: torch.Tensor | None
    block: tuple[int, ...]
    rest: tuple[Any, ...]
    named: tuple[tuple[str, Any], ...]
    in_floats: bool

    @staticmethod
    def call(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return what an operator makes of a table, a product or a table; NotImplemented where all of it is needed."""
        if name == "torchao.dequantize_affine.default":
            return _table(args, kwargs)
        if name in _READERS and any(isinstance(argument, RowTable) for argument in args):
            return _READERS[name](*args, **kwargs)
        return NotImplemented

    def rows(self, selected: torch.Tensor | slice, space: torch.Tensor | None = None) -> torch.Tensor:
        """Dequantize some rows, floats in the `space` for them where there is one."""
        values, scales = self.values[selected], self.scales[selected]
        zeros = None if self.zeros is None else self.zeros[selected]
        if self.in_floats:
            floats = values.to(_FLOAT, copy=True) if space is None else space[: len(values)].copy_(values)
            return _in_place(floats, scales, zeros, self.block[1])
        result: torch.Tensor = torch.ops.torchao.dequantize_affine.default(
            values, list(self.block), scales, zeros, *self.rest, **dict(self.named)
        )
        return result

    def blocks(self) -> Iterator[torch.Tensor]:
        """Yield all rows, a bounded number of values at a time, which may lie where the ones before lay."""
        rows, columns = self.values.shape
        step = max(1, BLOCK_VALUES // max(1, columns))
        space = torch.empty(min(step, rows), columns)
        for start in range(0, rows, step):
            yield self.rows(slice(start, start + step), space)

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
    output = rest[3] if len(rest) > 3 else kwargs.get("output_dtype", _FLOAT)
    in_floats = output is _FLOAT and scales.dtype is _FLOAT
    return RowTable(
        values=values,
        scales=scales,
        zeros=None if in_floats and zeros is not None and not zeros.any() else zeros,
        block=tuple(block),
        rest=tuple(rest),
        named=tuple(kwargs.items()),
        in_floats=in_floats,
    )


def _embedding(table: RowTable, indices: torch.Tensor, *rest: Any, **named: Any) -> torch.Tensor:
    del rest, named
    distinct, places = torch.unique(indices, return_inverse=True)
    return table.rows(distinct)[places]


def _linear(x: Any, table: Any, bias: torch.Tensor | None = None) -> Any:
    if not isinstance(table, RowTable) or isinstance(x, RowTable):
        return NotImplemented
    return RowProduct(x=x, table=table, bias=bias)


def _in_place(
    values: torch.Tensor, scales: torch.Tensor, zeros: torch.Tensor | None, group: int
) -> torch.Tensor:
    """`dequantize_affine` of float32 [rows, columns], which is overwritten: what it computes, without its copies."""
    grouped = values.view(len(values), -1, group)
    if zeros is not None:
        grouped.sub_(zeros.reshape(len(values), -1, 1).to(_FLOAT))
    grouped.mul_(scales.reshape(len(values), -1, 1))
    return values


@dataclass(frozen=True, slots=True, kw_only=True)
class RowProduct:
    """A linear by a table, to be computed together with others by the same one, or when somebody asks for it."""

    x: torch.Tensor
    table: RowTable
    bias: torch.Tensor | None

    @property
    def large(self) -> bool:
        """Whether the product takes so much memory that its parts are better not had together."""
        return self.x.shape[:-1].numel() * self.table.values.shape[0] >= _LATER_FROM


def whole(value: Any) -> Any:
    """Return a value, all rows of it where it is a table."""
    return value.whole() if isinstance(value, RowTable) else value


def in_parts(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """Yield values of one shape, some rows of each at a time where all are products that were left for later."""
    if not all(isinstance(value, RowProduct) for value in values):
        yield [made(value) for value in values]
        return
    for start in range(0, values[0].x.shape[:-1].numel(), _ROWS):
        rows = (each.x.reshape(-1, each.x.shape[-1])[start : start + _ROWS] for each in values)
        yield computed([replace(each, x=x) for each, x in zip(values, rows, strict=True)])


def made(value: Any) -> Any:
    """Return a value, computed where it is a product that was left for later."""
    return computed([value])[0]


def computed(results: Sequence[Any]) -> Sequence[Any]:
    """Return results with what products are in their place; rows of a table are dequantized once for all of them."""
    products = [each for each in results if isinstance(each, RowProduct)]
    if len(products) < len(results) or any(each.table is not products[0].table for each in products):
        return [_products([each])[0] if isinstance(each, RowProduct) else each for each in results]
    return _products(products) if products else results


def _products(products: Sequence[RowProduct]) -> list[torch.Tensor]:
    """Compute products by one table."""
    table = products[0].table
    rows = [each.x.reshape(-1, each.x.shape[-1]) for each in products]
    parts = zip(products, multiplied(rows, table.blocks(), len(table.values)), strict=True)
    shaped = [(each.bias, part.reshape(*each.x.shape[:-1], -1)) for each, part in parts]
    return [part if bias is None else part + bias for bias, part in shaped]


def multiplied(
    matrices: Sequence[torch.Tensor],
    blocks: Iterable[torch.Tensor],
    rows: int,
    product: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = functional.linear,
) -> Sequence[torch.Tensor]:
    """Multiply matrices [M, K] with all `rows` of a table, which comes in blocks [some, K]: [M, rows] each.

    They are one product. One of fewer than four rows is summed in another order than those of more (MKL 2024, measured), so
    that none has fewer: what a row gives is the same whatever is beside it.
    """
    counts = [len(x) for x in matrices]
    x = functional.pad(torch.cat([*matrices]), (0, 0, 0, max(0, _FEWEST - sum(counts))))
    out, start = x.new_empty(len(x), rows), 0
    for block in blocks:
        out[:, start : start + len(block)] = product(x, block)
        start += len(block)
    return torch.split(out[: sum(counts)], counts)


_READERS: Final[dict[str, Callable[..., Any]]] = {
    "aten.embedding.default": _embedding,
    "aten.linear.default": _linear,
}
