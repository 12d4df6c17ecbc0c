"""What the runtime does not resize, or resizes otherwise, by operators that it does: tensors of symbolic sizes.

Squeezes: a squeezed texture without its outermost dimension has the largest size, whatever the input
(runtime/graph/ops/impl/Squeeze.cpp, Clone.cpp), and a buffer squeezed by a negative dimension its old rank. Pools along a
sequence, decomposed by ExecuTorch, end in such a squeeze. ``aten.split_with_sizes_copy`` (Split.cpp passes no resize
function) and ``aten.expand_copy`` keep their largest sizes. A choice is resized to the sizes of its operands in turn, and
one of more dimensions than those before gets its extra ones at the end (Where.cpp, resize_where_node): a mask [rows,
columns] of scores [batch, rows, columns] aborts, or the result has another shape.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram

from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.moves import COPIES, same_shape
from vkfuse.rewrite.operands import is_dynamic, operand, operands
from vkfuse.rewrite.repairs.dimensions import MOST
from vkfuse.rewrite.repairs.each import Repairs, done, replaces

aten = torch.ops.aten


@replaces(
    *(aten.squeeze.default, aten.squeeze.dim, aten.squeeze.dims),
    code="squeezes-as-views",
    detail="a squeeze is not resized by the runtime",
)
def squeezes_as_views(editor: GraphEditor, node: fx.Node, x: torch.Tensor) -> torch.Tensor | None:
    """Replace each squeeze by a view, which is resized. A dimension of a symbolic size is none of size one."""
    if not is_dynamic(x):
        return None
    asked = operands(node).get("dim", [*range(x.ndim)])
    dimensions = {d % x.ndim for d in (asked if isinstance(asked, (list, tuple)) else [asked])}
    left = [
        d for d, size in enumerate(x.shape) if d not in dimensions or not isinstance(size, int) or size != 1
    ]
    if len(left) == x.ndim:
        return x
    sizes = editor.sizes(x)
    return x.view([sizes[d] for d in left])


@replaces(aten.adaptive_avg_pool1d.default, code="pools-as-images", detail="a pool of images one pixel high")
def pools_as_images(x: torch.Tensor, output_size: Sequence[int]) -> torch.Tensor | None:
    """Replace each adaptive mean of [batch, channels, length] to several values."""
    if not is_dynamic(x) or [*output_size] == [1]:
        return None
    return aten.adaptive_avg_pool2d.default(x.unsqueeze(-2), [1, *output_size]).squeeze(x.ndim - 1)  # type: ignore[no-any-return]


_SPLITS = (aten.split.Tensor, aten.split_with_sizes.default, aten.chunk.default)


@replaces(*_SPLITS, code="splits-as-slices", detail="a split is not resized by the runtime")
def splits_as_slices(node: fx.Node, which: int, x: torch.Tensor, dim: int) -> torch.Tensor | None:
    """Replace the parts of each split by slices, where the split dimension itself is static."""
    lengths = [part.shape[dim] for part in node.meta["val"]]
    if not _ends(x) or not all(isinstance(length, int) for length in lengths):
        return None
    start = sum(lengths[:which])
    return aten.slice.Tensor(x, dim, start, start + lengths[which])  # type: ignore[no-any-return]


@replaces(
    aten.unbind.int,
    code="unbinds-as-selections",
    detail="ExecuTorch ends it in squeezes, which are not resized",
)
def unbinds_as_selections(which: int, x: torch.Tensor, dim: int) -> torch.Tensor | None:
    """Replace the parts of a tensor along one dimension by selections."""
    return x.select(dim, which) if _ends(x) else None


def _ends(x: torch.Tensor) -> bool:
    """Whether a delegate ends where parts are made of `x`: of symbolic sizes, or more dimensions than it has."""
    return x.ndim > MOST or is_dynamic(x)


_BROADCASTING = (
    *(aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor),
    aten.where.self,
)


_FULL: dict[Any, Any] = {
    aten.full_like.default: "fill_value",
    aten.zeros_like.default: 0.0,
    aten.ones_like.default: 1.0,
}


def expansions_as_broadcasts(exported: ExportedProgram) -> Repairs:
    """Let elementwise arithmetic with tensors of the full shape broadcast what an expansion of floats would copy.

    Where a number is expanded to the sizes of another tensor, it is a tensor of one value.
    """
    editor, found, gone = GraphEditor(exported), [], set[fx.Node]()
    for node in exported.graph.nodes:
        copies = _copies_of(node)
        if node.target in _EXPANDING and _is_expansion_of_floats(node) and _only_broadcast(copies, gone):
            found.append(node.name)
            gone.update(copies)
            for copy in copies:
                editor.replace(copy, _unexpanded(editor, node))
    detail = "an expansion is not resized by the runtime"
    return done(editor, found, code="expansions-as-broadcasts", detail=detail)


_EXPANDING = (aten.expand.default, *_FULL)


def _unexpanded(editor: GraphEditor, node: fx.Node) -> fx.Node:
    if node.target not in _FULL:
        return operand(node, "x")  # type: ignore[no-any-return]
    given, value = _FULL[node.target], node.meta["val"]
    number = operand(node, given) if isinstance(given, str) else given
    return editor.constant(torch.full([1] * value.ndim, number, dtype=value.dtype), f"{node.name}.number")


def _is_expansion_of_floats(node: fx.Node) -> bool:
    value, before = node.meta["val"], operand(node, "x").meta["val"]
    return is_dynamic(node) and value.dtype.is_floating_point and value.ndim == before.ndim


def _copies_of(node: fx.Node) -> list[fx.Node]:
    """`node` and every copy of it."""
    return [node, *(copy for user in node.users if user.target in COPIES for copy in _copies_of(user))]


def _only_broadcast(copies: list[fx.Node], gone: set[fx.Node]) -> bool:
    """Whether each reader of an expansion and its copies is arithmetic with a tensor of its shape that stays."""
    short = gone.union(copies)
    readers = [user for copy in copies for user in copy.users if user not in copies]
    return bool(readers) and all(
        reader.target in _BROADCASTING
        and any(same_shape(o, copies[0]) for o in reader.all_input_nodes if o not in short)
        for reader in readers
    )


@replaces(
    *(aten.where.self, aten.where.ScalarOther, aten.where.ScalarSelf),
    *(aten.masked_fill.Scalar, aten.masked_fill.Tensor),
    code="conditions-in-full-rank",
    detail="the runtime resizes a choice by its condition first",
)
def conditions_in_full_rank(editor: GraphEditor, node: fx.Node) -> torch.Tensor | None:
    """Let each condition of a choice have as many dimensions as the result."""
    (name,) = operands(node).keys() & {"condition", "mask"}
    condition = editor.tensor(operand(node, name))
    missing = node.meta["val"].ndim - condition.ndim
    if not missing or not is_dynamic(node):
        return None
    for _ in range(missing):
        condition = condition.unsqueeze(0)
    return editor.again(node, **{name: condition})
