"""``aten.embedding_bag`` has no kernel in any ExecuTorch runtime: bags become lookups, and sums, means or maxima.

Bags of one length are the rows of a matrix of indices. Bags of other known lengths, and those whose offsets are computed,
are summed by a matrix of zeros and ones. The sums are the operator's own, in another order.
"""

import operator
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import fx
from torch.export import ExportedProgram

from vkfuse.rewrite.arguments import argument
from vkfuse.rewrite.constants import Constants
from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.repairs.each import done
from vkfuse.rewrite.repairs.notes import Repairs

aten = torch.ops.aten
_SUM, _MEAN, _MAX = 0, 1, 2
_BAGS: Final = {
    aten.embedding_bag.default,
    aten.embedding_bag.padding_idx,
    aten._embedding_bag.default,  # noqa: SLF001 - the operator's name
    aten._embedding_bag_forward_only.default,  # noqa: SLF001 - the operator's name
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bag:
    """An operator's arguments. `starts` are the first positions of the bags, None where they are computed."""

    node: fx.Node
    table: fx.Node
    indices: fx.Node
    offsets: fx.Node
    mode: int
    weights: fx.Node | None
    last: bool
    padding: int | None
    starts: tuple[int, ...] | None

    @property
    def length(self) -> int | None:
        """How many indices each bag has, None where bags differ or the number is not known."""
        count = self.indices.meta["val"].shape[0]
        if self.starts is None:
            return None if self.last else _step_of(self.offsets, count)
        if not isinstance(count, int):
            return None
        ends = (*self.starts[1:], count)[: len(self.starts) - self.last]
        lengths = {end - start for start, end in zip(self.starts, ends, strict=False)}
        whole = self.starts[:1] == (0,) and ends[-1:] == (count,)
        return lengths.pop() if len(lengths) == 1 and whole and 0 not in lengths else None


def bags_as_lookups(exported: ExportedProgram) -> Repairs:
    """Replace each bag by a lookup and a reduction, where only its result is read."""
    editor = GraphEditor(exported)
    found = [(bag, result) for bag in _bags(editor) for result in bag.node.users]
    for bag, result in found:
        with editor.before(result):
            editor.replace(result, _reduced(editor, bag))
    names, detail = (bag.node.name for bag, _ in found), "lookups, and sums, means or maxima of their rows"
    return done(editor, names, code="bag-as-lookup", detail=detail)


def _bags(editor: GraphEditor) -> Iterator[_Bag]:
    for node in editor.program.graph.nodes:
        if node.target not in _BAGS or any(
            user.target != operator.getitem or user.args[1] != 0 for user in node.users
        ):
            continue
        bag = _bag(node, editor.constants)
        dense = bag.length is not None
        if bag.indices.meta["val"].ndim == 1 and (dense or (bag.mode != _MAX and not bag.last)):
            yield bag


def _bag(node: fx.Node, constants: Constants) -> _Bag:
    offsets, padding = argument(node, 2, "offsets"), argument(node, 8, "padding_idx", None)
    known = constants.value(offsets).tolist() if offsets in constants else None
    rows = node.args[0].meta["val"].shape[0]  # type: ignore[union-attr]
    return _Bag(
        node=node,
        table=node.args[0],  # type: ignore[arg-type]
        indices=argument(node, 1, "indices"),
        offsets=offsets,
        mode=argument(node, 4, "mode", _SUM),
        weights=argument(node, 6, "per_sample_weights", None),
        last=bool(argument(node, 7, "include_last_offset", False)),
        padding=None if padding is None or (padding < 0 and node.target not in _PADDED) else padding % rows,
        starts=None if known is None else tuple(known),
    )


_PADDED: Final = {aten.embedding_bag.padding_idx}  # the others spell no padding as -1


def _step_of(offsets: fx.Node, count: Any) -> int | None:
    """The step of offsets that are ``arange(0, count, step)``, where bags are rows of a dynamic number of indices."""
    if offsets.target != aten.arange.start_step or offsets.args[0] != 0 or len(offsets.args) < 3:
        return None
    end, step = offsets.args[1:3]
    size = end.meta["val"] if isinstance(end, fx.Node) else end
    same = (
        isinstance(size, torch.SymInt)
        and isinstance(count, torch.SymInt)
        and size.node.expr == count.node.expr
    )
    whole = same and count.node.expr % step == 0 if isinstance(step, int) and step > 0 else False
    return step if whole else None  # type: ignore[return-value]


def _reduced(editor: GraphEditor, bag: _Bag) -> fx.Node:
    """The bags [bags, columns]."""
    return _of_one_length(editor, bag) if bag.length is not None else _by_matrix(editor, bag)


def _of_one_length(editor: GraphEditor, bag: _Bag) -> fx.Node:
    """Rows [bags, length, columns], reduced over the bag."""
    shape = [-1, bag.length]
    indices = editor.call(aten.reshape.default, bag.indices, shape)
    rows = editor.call(aten.embedding.default, bag.table, indices)
    if bag.weights is not None:
        weights = editor.call(aten.reshape.default, bag.weights, [*shape, 1])
        rows = editor.call(aten.mul.Tensor, rows, weights)
    if bag.padding is None:
        reduce: Any = {_SUM: aten.sum.dim_IntList, _MEAN: aten.mean.dim, _MAX: aten.amax.default}[bag.mode]
        return editor.call(reduce, rows, [1])
    real = editor.call(aten.unsqueeze.default, _real(editor, bag, indices, rows), -1)
    if bag.mode == _MAX:
        return _largest(editor, rows, real)
    total = editor.call(aten.sum.dim_IntList, editor.call(aten.mul.Tensor, rows, real), [1])
    return (
        total if bag.mode == _SUM else _divided(editor, total, editor.call(aten.sum.dim_IntList, real, [1]))
    )


def _real(editor: GraphEditor, bag: _Bag, indices: fx.Node, like: fx.Node) -> fx.Node:
    """Ones for indices, zeros for padding, in the type of `like`."""
    return editor.cast(editor.call(aten.ne.Scalar, indices, bag.padding), like.meta["val"].dtype)


def _largest(editor: GraphEditor, rows: fx.Node, real: fx.Node) -> fx.Node:
    """The largest of the rows that are no padding, zero where all are."""
    least = torch.finfo(rows.meta["val"].dtype).min
    far = editor.call(aten.mul.Scalar, editor.call(aten.rsub.Scalar, real, 1), least)
    largest = editor.call(aten.amax.default, editor.call(aten.add.Tensor, rows, far), [1])
    return editor.call(aten.mul.Tensor, largest, editor.call(aten.amax.default, real, [1]))


def _divided(editor: GraphEditor, total: fx.Node, count: fx.Node) -> fx.Node:
    return editor.call(aten.div.Tensor, total, editor.call(aten.clamp.default, count, 1))


def _by_matrix(editor: GraphEditor, bag: _Bag) -> fx.Node:
    """Rows [n, columns] of all bags, summed by a matrix [bags, n] that has a one where a row is the bag's."""
    rows = editor.call(aten.embedding.default, bag.table, bag.indices)
    members = _members(editor, bag, rows)
    if bag.padding is not None:
        members = editor.call(aten.mul.Tensor, members, _real(editor, bag, bag.indices, rows))
    weighted = members if bag.weights is None else editor.call(aten.mul.Tensor, members, bag.weights)
    total = editor.call(aten.mm.default, weighted, rows)
    if bag.mode == _SUM:
        return total
    return _divided(editor, total, editor.call(aten.sum.dim_IntList, members, [1], True))


def _members(editor: GraphEditor, bag: _Bag, rows: fx.Node) -> fx.Node:
    """The matrix of zeros and ones [bags, n] in the type of `rows`."""
    dtype, count = rows.meta["val"].dtype, rows.meta["val"].shape[0]
    if bag.starts is not None and isinstance(count, int):
        place, starts = torch.arange(count), torch.tensor(bag.starts)
        ends = torch.tensor([*bag.starts[1:], count])
        inside = (starts[:, None] <= place) & (place < ends[:, None])
        return editor.constant(inside.to(dtype), f"{bag.node.name}.members")
    (size,) = editor.sizes(bag.indices)
    places = editor.call(aten.arange.default, size)
    first = editor.call(aten.unsqueeze.default, bag.offsets, 1)
    begun = editor.cast(editor.call(aten.ge.Tensor, places, first), dtype)
    next_begun = editor.call(aten.slice.Tensor, begun, 0, 1, sys.maxsize)
    later = editor.call(aten.constant_pad_nd.default, next_begun, [0, 0, 0, 1])
    return editor.call(aten.sub.Tensor, begun, later)
