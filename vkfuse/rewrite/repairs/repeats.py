"""Grouped keys repeated for their queries, in four dimensions.

transformers repeats the key heads of grouped-query attention through a fifth dimension, ``x[:, :, None].expand(...)``,
others by ``repeat_interleave``, which is decomposed to that. Vulkan tensors have no fifth dimension: each layer would
leave the delegate. A product with repeated heads is one of more rows with each head as it is; where something else reads
them, copies side by side are the same tensor: [batch, heads, rows, size] -> [batch * heads, 1, rows, size], n of them
concatenated along the second dimension.
"""

from dataclasses import dataclass

import torch
from torch import fx

from vkfuse.rewrite.arguments import argument
from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.repairs.each import replaces

aten = torch.ops.aten

_VIEWS = (aten.view.default, aten.reshape.default, aten._unsafe_view.default)  # noqa: SLF001 - the operator's name


@dataclass(frozen=True, slots=True, kw_only=True)
class _Repeat:
    """``source`` of four dimensions, each part of it along `dimension`, the heads, repeated `count` times."""

    source: fx.Node
    count: int
    dimension: int


@replaces(
    *(*_VIEWS, aten.repeat_interleave.self_int),
    code="repeats-concatenated",
    detail="four dimensions in place of five",
)
def repeats_as_concatenation(editor: GraphEditor, node: fx.Node) -> fx.Node | None:
    """Replace each repetition of heads through a fifth dimension."""
    repeat = _repeat(node)
    if repeat is None:
        return None
    behind = editor.sizes(repeat.source)[repeat.dimension + 1 :]
    flat = editor.call(aten.reshape.default, repeat.source, [-1, 1, *behind])
    copies = editor.call(aten.cat.default, [flat] * repeat.count, 1)
    return editor.call(aten.reshape.default, copies, editor.sizes(node))


@replaces(aten.matmul.default, code="repeats-as-rows", detail="a head's queries are rows of one product")
def repeats_as_rows(editor: GraphEditor, node: fx.Node) -> fx.Node | None:
    """Replace each product with repeated heads, [batch, heads * n, rows, k] by [batch, heads * n, k, columns]."""
    repeat = _repeated_factor(node)
    if repeat is None:
        return None
    rows, factor, source = argument(node, 0, "self"), argument(node, 1, "other"), repeat.source
    batch, heads, _, size = editor.sizes(rows)
    grouped = editor.call(aten.reshape.default, rows, [batch, heads // repeat.count, -1, size])
    if factor.target == aten.transpose.int:
        source = editor.call(aten.transpose.int, source, -2, -1)
    product = editor.call(aten.matmul.default, grouped, source)
    return editor.call(aten.reshape.default, product, editor.sizes(node))


def _repeated_factor(node: fx.Node) -> _Repeat | None:
    """The repetition that the second factor of a product is, or is the transposition of."""
    rows, factor = argument(node, 0, "self"), argument(node, 1, "other")
    if rows.meta["val"].ndim != factor.meta["val"].ndim:
        return None
    if factor.target == aten.transpose.int and {argument(factor, i, "dim") % 4 for i in (1, 2)} == {2, 3}:
        factor = argument(factor, 0, "self")
    repeat = _repeat(factor)
    same = (
        repeat
        and repeat.dimension == 1
        and str(rows.meta["val"].shape[:2]) == str(factor.meta["val"].shape[:2])
    )
    return repeat if same else None


def _repeat(node: fx.Node) -> _Repeat | None:
    """A view to four dimensions of an expansion along a new one, with whatever copies stand between."""
    if node.target == aten.repeat_interleave.self_int:
        return _interleaved(node)
    if node.target not in _VIEWS or node.meta["val"].ndim != 4:
        return None
    expand = argument(node, 0, "self")
    while expand.target in {aten.clone.default, aten.slice.Tensor} and _same_shape(expand):
        expand = argument(expand, 0, "self")
    if expand.target != aten.expand.default or expand.meta["val"].ndim != 5:
        return None
    unsqueeze = argument(expand, 0, "self")
    while unsqueeze.target == aten.slice.Tensor and _same_shape(unsqueeze):
        unsqueeze = argument(unsqueeze, 0, "self")
    if unsqueeze.target != aten.unsqueeze.default:
        return None
    source, new = argument(unsqueeze, 0, "self"), argument(unsqueeze, 1, "dim") % 5
    count, along = expand.meta["val"].shape[new], new - 1
    if along < 1 or not isinstance(count, int):
        return None
    wanted = [size * count if d == along else size for d, size in enumerate(source.meta["val"].shape)]
    whole = isinstance(wanted[along], int) and str(list(node.meta["val"].shape)) == str(wanted)
    return _Repeat(source=source, count=count, dimension=along) if whole else None


def _interleaved(node: fx.Node) -> _Repeat | None:
    source, count = argument(node, 0, "self"), argument(node, 1, "repeats")
    along, rank = argument(node, 2, "dim"), source.meta["val"].ndim
    if rank != 4 or along is None or along % rank == 0 or not isinstance(count, int):
        return None
    static = isinstance(source.meta["val"].shape[along], int)
    return _Repeat(source=source, count=count, dimension=along % rank) if static else None


def _same_shape(node: fx.Node) -> bool:
    """Whether a slice or copy keeps the shape of its input."""
    return str(tuple(node.meta["val"].shape)) == str(tuple(argument(node, 0, "self").meta["val"].shape))
