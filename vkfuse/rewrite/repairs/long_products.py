"""A product over many columns for few rows, in parts that are summed.

The runtime computes each element of a product in one thread, column after column: the last product of attention over a
cache is as slow as the cache is long, while most of a GPU waits. Parts of the columns are a batch of products.
"""

from math import prod
from typing import Final

import torch

from vkfuse.rewrite.operands import is_dynamic
from vkfuse.rewrite.repairs.each import replaces

aten = torch.ops.aten

_FEW: Final = 16  # rows
_PART: Final = 64  # columns, of at least _LONG
_LONG: Final = 256


@replaces(
    aten.matmul.default,
    code="long-products-in-parts",
    detail=f"{_PART} columns at a time, equal up to rounding",
)
def long_products_in_parts(x: torch.Tensor, other: torch.Tensor) -> torch.Tensor | None:
    """Replace each product [.., few rows, columns] by [.., columns, n] of static shapes."""
    if is_dynamic(x) or is_dynamic(other) or not _is_long(x, other):
        return None
    *batch, rows, columns = x.shape
    width, parts, matrices = other.shape[-1], columns // _PART, prod(batch)
    apart = x.reshape([matrices, rows, parts, _PART]).permute([0, 2, 1, 3])
    left = apart.reshape([matrices * parts, rows, _PART])
    products = left.matmul(other.reshape([matrices * parts, _PART, width]))
    whole = products.reshape([matrices, parts, rows * width]).sum([1], True)
    return whole.reshape([*batch, rows, width])


def _is_long(first: torch.Tensor, second: torch.Tensor) -> bool:
    if first.ndim < 3 or first.shape[:-2] != second.shape[:-2] or not first.is_floating_point():
        return False
    rows, columns = first.shape[-2:]
    return rows <= _FEW and columns >= _LONG and columns % _PART == 0
