"""A product over many columns for few rows, in parts that are summed.

The runtime computes each element of a product in one thread, column after column: the last product of attention over a
cache is as slow as the cache is long, while most of a GPU waits. Parts of the columns are a batch of products.
"""

from math import prod
from typing import Final

import torch
from torch import fx

from vkfuse.rewrite.arguments import argument, is_dynamic
from vkfuse.rewrite.editor import GraphEditor
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
def long_products_in_parts(editor: GraphEditor, node: fx.Node) -> fx.Node | None:
    """Replace each product [.., few rows, columns] by [.., columns, n] of static shapes."""
    first, second = argument(node, 0, "self"), argument(node, 1, "other")
    if is_dynamic(first) or is_dynamic(second) or not _is_long(first.meta["val"], second.meta["val"]):
        return None
    *batch, rows, columns = first.meta["val"].shape
    width, parts, matrices = second.meta["val"].shape[-1], columns // _PART, prod(batch)
    apart = editor.call(aten.reshape.default, first, [matrices, rows, parts, _PART])
    turned = editor.call(aten.permute.default, apart, [0, 2, 1, 3])
    left = editor.call(aten.reshape.default, turned, [matrices * parts, rows, _PART])
    right = editor.call(aten.reshape.default, second, [matrices * parts, _PART, width])
    products = editor.call(aten.matmul.default, left, right)
    together = editor.call(aten.reshape.default, products, [matrices, parts, rows * width])
    whole = editor.call(aten.sum.dim_IntList, together, [1], True)
    return editor.call(aten.reshape.default, whole, [*batch, rows, width])


def _is_long(first: torch.Tensor, second: torch.Tensor) -> bool:
    if first.ndim < 3 or first.shape[:-2] != second.shape[:-2] or not first.is_floating_point():
        return False
    rows, columns = first.shape[-2:]
    return rows <= _FEW and columns >= _LONG and columns % _PART == 0
