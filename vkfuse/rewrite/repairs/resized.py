"""What the runtime does not resize, or resizes otherwise, by operators that it does: tensors of symbolic sizes.

Squeezes: a squeezed texture without its outermost dimension has the largest size, whatever the input
(runtime/graph/ops/impl/Squeeze.cpp, Clone.cpp), and a buffer squeezed by a negative dimension its old rank. Pools along a
sequence, decomposed by ExecuTorch, end in such a squeeze. ``aten.split_with_sizes_copy`` (Split.cpp passes no resize
function) and ``aten.expand_copy`` keep their largest sizes. A choice is resized to the sizes of its operands in turn, and
one of more dimensions than those before gets its extra ones at the end (Where.cpp, resize_where_node): a mask [rows,
columns] of scores [batch, rows, columns] aborts, or the result has another shape.
"""

import operator
from typing import Any

import torch
from torch import fx
from torch._decomp import get_decompositions
from torch.export import ExportedProgram

from vkfuse.rewrite.arguments import argument, is_dynamic
from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.repairs.each import done, replaces
from vkfuse.rewrite.repairs.notes import Repairs

aten = torch.ops.aten


@replaces(
    *(aten.squeeze.default, aten.squeeze.dim, aten.squeeze.dims),
    code="squeezes-as-views",
    detail="a squeeze is not resized by the runtime",
)
def squeezes_as_views(editor: GraphEditor, node: fx.Node) -> fx.Node | None:
    """Replace each squeeze by a view, which is resized. A dimension of a symbolic size is none of size one."""
    source: fx.Node = argument(node, 0, "self")
    if not is_dynamic(source):
        return None
    removed, sizes = _removed(node, source.meta["val"].shape), editor.sizes(source)
    if not removed:
        return source
    left = [size for dimension, size in enumerate(sizes) if dimension not in removed]
    return editor.call(aten.view.default, source, left)


def _removed(node: fx.Node, shape: torch.Size) -> set[int]:
    """The dimensions that go: of those asked for, all without an argument, the ones of size one."""
    asked = argument(node, 1, "dim", default=list(range(len(shape))))
    dimensions = {d % len(shape) for d in (asked if isinstance(asked, (list, tuple)) else [asked])}
    return {d for d in dimensions if isinstance(shape[d], int) and shape[d] == 1}


_POOLS: dict[Any, Any] = {
    aten.avg_pool1d.default: aten.avg_pool2d.default,
    aten.max_pool1d.default: aten.max_pool2d.default,
    aten.adaptive_avg_pool1d.default: aten.adaptive_avg_pool2d.default,
}
_UNITS = {"output_size": 1, "kernel_size": 1, "stride": 1, "padding": 0, "dilation": 1}  # along what is added


@replaces(*_POOLS, code="pools-as-images", detail="a pool of images one pixel high")
def pools_as_images(editor: GraphEditor, node: fx.Node) -> fx.Node | None:
    """Replace each pool of [batch, channels, length]; one to a single value is a mean, which needs no images."""
    source = argument(node, 0, "self")
    if not is_dynamic(source):
        return None
    pool = _POOLS[node.target]
    if node.args[1] == [1] and pool == aten.adaptive_avg_pool2d.default:
        return editor.call(aten.mean.dim, source, [-1], True)
    names = [a.name for a in node.target._schema.arguments][1 : len(node.args)]  # type: ignore[union-attr]  # noqa: SLF001
    pairs = {name: _pair(name, value) for name, value in zip(names, node.args[1:], strict=True)}
    if "kernel_size" in pairs:
        pairs["stride"] = pairs.get("stride") or pairs["kernel_size"]
    pooled = editor.call(pool, editor.call(aten.unsqueeze.default, source, -2), **pairs)
    return editor.call(aten.squeeze.dim, pooled, node.meta["val"].ndim - 1)


def _pair(name: str, given: Any) -> Any:
    """A list of one number as one of two; anything else as it is."""
    return [_UNITS[name], *given] if isinstance(given, (list, tuple)) and given else given


_SPLITS = (aten.split.Tensor, aten.split_with_sizes.default, aten.chunk.default)


def splits_as_slices(exported: ExportedProgram) -> Repairs:
    """Replace the parts of each split by slices, where the split dimension itself is static."""
    found = [n for n in exported.graph.nodes if n.target in _SPLITS and _is_split_of_dynamic(n)]
    editor = GraphEditor(exported)
    for node in found:
        _slice(editor, node)
    names = (n.name for n in found)
    return done(editor, names, code="splits-as-slices", detail="a split is not resized by the runtime")


def _is_split_of_dynamic(node: fx.Node) -> bool:
    parts = node.meta["val"]
    symbolic = any(isinstance(size, torch.SymInt) for size in parts[0].shape)
    static = all(isinstance(part.shape[_dimension(node)], int) for part in parts)
    return symbolic and static and all(user.target is operator.getitem for user in node.users)


def _dimension(node: fx.Node) -> int:
    return int(argument(node, 2, "dim", 0))


def _slice(editor: GraphEditor, node: fx.Node) -> None:
    dimension, whole = _dimension(node), argument(node, 0, "self")
    lengths = [part.shape[dimension] for part in node.meta["val"]]
    for item in node.users:
        position = argument(item, 1, "index")
        start = sum(lengths[:position])
        with editor.before(item):
            part = editor.call(aten.slice.Tensor, whole, dimension, start, start + lengths[position])
        editor.replace(item, part)


_COPIES = (aten.clone.default, aten.contiguous.default)
_BROADCASTING = (aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor)


def expansions_as_broadcasts(exported: ExportedProgram) -> Repairs:
    """Let elementwise arithmetic with tensors of the full shape broadcast what an expansion of floats would copy."""
    editor, found, gone = GraphEditor(exported), [], set[fx.Node]()
    for node in exported.graph.find_nodes(op="call_function", target=aten.expand.default):
        copies = _copies_of(node)
        if _is_expansion_of_floats(node) and _only_broadcast(copies, gone):
            found.append(node.name)
            gone.update(copies)
            for copy in copies:
                editor.replace(copy, argument(node, 0, "self"))
    detail = "an expansion is not resized by the runtime"
    return done(editor, found, code="expansions-as-broadcasts", detail=detail)


def _is_expansion_of_floats(node: fx.Node) -> bool:
    value, before = node.meta["val"], argument(node, 0, "self").meta["val"]
    return is_dynamic(node) and value.dtype.is_floating_point and value.ndim == before.ndim


def _copies_of(node: fx.Node) -> list[fx.Node]:
    """`node` and every copy of it."""
    return [node, *(copy for user in node.users if user.target in _COPIES for copy in _copies_of(user))]


def _only_broadcast(copies: list[fx.Node], gone: set[fx.Node]) -> bool:
    """Whether each reader of an expansion and its copies is arithmetic with a tensor of its shape that stays."""
    shape, short = str(tuple(copies[0].meta["val"].shape)), gone.union(copies)
    readers = [user for copy in copies for user in copy.users if user not in copies]
    return bool(readers) and all(
        reader.target in _BROADCASTING
        and any(str(tuple(o.meta["val"].shape)) == shape for o in reader.all_input_nodes if o not in short)
        for reader in readers
    )


_TRIANGLES = (aten.tril.default, aten.triu.default)
_CONDITION: dict[Any, int] = {  # position of the condition
    aten.where.self: 0,
    aten.where.ScalarOther: 0,
    aten.where.ScalarSelf: 0,
    aten.masked_fill.Scalar: 1,
    aten.masked_fill.Tensor: 1,
}


def conditions_in_full_rank(exported: ExportedProgram) -> Repairs:
    """Let each condition of a choice have as many dimensions as the result; triangles are such choices once decomposed."""
    if any(n.target in _TRIANGLES and is_dynamic(n) for n in exported.graph.nodes):
        exported = exported.run_decompositions(get_decompositions(_TRIANGLES))
    return _conditions(exported)


@replaces(
    *_CONDITION,
    code="conditions-in-full-rank",
    detail="the runtime resizes a choice by its condition first",
)
def _conditions(editor: GraphEditor, node: fx.Node) -> fx.Node | None:
    position, operands = _CONDITION[node.target], list(node.args)
    condition = operands[position]
    missing = node.meta["val"].ndim - condition.meta["val"].ndim if isinstance(condition, fx.Node) else 0
    if not missing or not is_dynamic(node):
        return None
    for _ in range(missing):
        operands[position] = editor.call(aten.unsqueeze.default, operands[position], 0)
    return editor.call(node.target, *operands, **node.kwargs)
