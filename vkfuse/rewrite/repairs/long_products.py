"""A product over many columns for few rows, in parts that are summed.

The runtime computes each element of a product in one thread, column after column: the last product of attention over a
cache is as slow as the cache is long, while most of a GPU waits. Parts of the columns are a batch of products.
"""

from math import prod
from typing import Final

import torch
from torch import fx
from torch.export import ExportedProgram

from vkfuse.rewrite.arguments import argument
from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.repairs.each import replace_each
from vkfuse.rewrite.repairs.notes import Repair

aten = torch.ops.aten

_FEW: Final = 16  # rows
_PART: Final = 64  # columns, of at least _LONG
_LONG: Final = 256


def long_products_in_parts(exported: ExportedProgram) -> tuple[ExportedProgram, tuple[Repair, ...]]:
    """Replace each product [.., few rows, columns] by [.., columns, n] of static shapes."""
    found = [node for node in exported.graph.nodes if _is_long(node)]
    detail = f"{_PART} columns at a time, equal up to rounding"
    return replace_each(exported, found, _in_parts, code="long-products-in-parts", detail=detail)


def _is_long(node: fx.Node) -> bool:
    if node.target != aten.matmul.default:
        return False
    shapes = [tuple(argument(node, i, name).meta["val"].shape) for i, name in enumerate(("self", "other"))]
    if not all(isinstance(size, int) for shape in shapes for size in shape):
        return False
    first, second = shapes
    if len(first) < 3 or first[:-2] != second[:-2]:
        return False
    return bool(first[-2] <= _FEW and first[-1] >= _LONG and first[-1] % _PART == 0)


def _in_parts(editor: GraphEditor, node: fx.Node) -> fx.Node:
    first, second = argument(node, 0, "self"), argument(node, 1, "other")
    *batch, rows, columns = first.meta["val"].shape
    width, parts, matrices = second.meta["val"].shape[-1], columns // _PART, prod(batch)
    apart = editor.call(aten.reshape.default, editor.node(first), [matrices, rows, parts, _PART])
    left = editor.call(
        aten.reshape.default,
        editor.call(aten.permute.default, apart, [0, 2, 1, 3]),
        [matrices * parts, rows, _PART],
    )
    right = editor.call(aten.reshape.default, editor.node(second), [matrices * parts, _PART, width])
    products = editor.call(aten.matmul.default, left, right)
    together = editor.call(aten.reshape.default, products, [matrices, parts, rows * width])
    whole = editor.call(aten.sum.dim_IntList, together, [1], True)
    return editor.call(aten.reshape.default, whole, [*batch, rows, width])
