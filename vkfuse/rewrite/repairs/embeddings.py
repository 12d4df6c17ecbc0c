"""What embeddings do besides looking rows up, as lookups and arithmetic, before tables are surveyed.

``aten.embedding_bag`` has no kernel in any ExecuTorch runtime: bags become lookups, and sums, means or maxima. Bags of one
length are the rows of a matrix of indices. Bags of other known lengths, and those whose offsets are computed, are summed by
a matrix of zeros and ones, or their largest is that of all rows, where those of other bags lie far below. The sums are the
operator's own, in another order.

``nn.Embedding(max_norm=...)`` renormalizes rows in place before it looks them up; no runtime has that operator. A row's
norm depends on that row alone, so that renormalizing all rows of a constant table gives every lookup the rows that it would
have had. What is left of it in the table shows in no later lookup: a renormalized row stays as it is.

Indices are checked where a run asks for it: no shader of the runtime does, the CPU's lookup does. An index divided by the
table's rows, rounded down, is 0 in the table, -1 where it counts from the end, else other. It is looked up in a table of
zeros that has just those rows, and what that gives is added to the index.
"""

import operator
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import fx
from torch.export import ExportedProgram

from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.moves import behind, readers
from vkfuse.rewrite.operands import operand, operands
from vkfuse.rewrite.repairs.each import Repairs, replaces
from vkfuse.rewrite.survey import lookup_in

aten = torch.ops.aten
_SUM, _MEAN, _MAX = 0, 1, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bag:
    """An operator's arguments. `starts` are the first positions of the bags, None where they are computed."""

    name: str
    table: torch.Tensor
    indices: torch.Tensor
    offsets: fx.Node
    mode: int
    weights: torch.Tensor | None
    last: bool
    padding: int | None
    starts: tuple[int, ...] | None

    @property
    def length(self) -> int | None:
        """How many indices each bag has, None where bags differ or the number is not known."""
        count: Any = self.indices.shape[0]
        if self.starts is None:
            return None if self.last else _step_of(self.offsets, count)
        if not isinstance(count, int):
            return None
        ends = (*self.starts[1:], count)[: len(self.starts) - self.last]
        lengths = {end - start for start, end in zip(self.starts, ends, strict=False)}
        whole = self.starts[:1] == (0,) and ends[-1:] == (count,)
        return lengths.pop() if len(lengths) == 1 and whole and 0 not in lengths else None


@replaces(
    *(aten.embedding_bag.default, aten.embedding_bag.padding_idx),
    *(aten._embedding_bag.default, aten._embedding_bag_forward_only.default),  # noqa: SLF001 - the operators' names
    code="bag-as-lookup",
    detail="lookups, and sums, means or maxima of their rows",
)
def bags_as_lookups(editor: GraphEditor, node: fx.Node) -> torch.Tensor | None:
    """Replace each bag by a lookup and a reduction, where only its result is read."""
    if any(user.target != operator.getitem or user.args[1] != 0 for user in node.users):
        return None
    bag = _bag(editor, node)
    if bag.indices.ndim != 1:
        return None
    return _of_one_length(bag) if bag.length is not None else _by_matrix(editor, bag)


def _bag(editor: GraphEditor, node: fx.Node) -> _Bag:
    given, constants = operands(node), editor.constants
    offsets, padding, weights = given["offsets"], given.get("padding_idx"), given["per_sample_weights"]
    known = constants.value(offsets).tolist() if offsets in constants else None
    table = editor.tensor(given["weight"])
    if padding is not None:
        padding = None if padding < 0 and node.target not in _PADDED else padding % table.shape[0]
    return _Bag(
        name=node.name,
        table=table,
        indices=editor.tensor(given["indices"]),
        offsets=offsets,
        mode=given["mode"],
        weights=None if weights is None else editor.tensor(weights),
        last=bool(given["include_last_offset"]),
        padding=padding,
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


def _of_one_length(bag: _Bag) -> torch.Tensor:
    """Rows [bags, length, columns], reduced over the bag."""
    shape = [-1, bag.length or 0]
    indices = bag.indices.reshape(shape)
    rows = torch.embedding(bag.table, indices)
    if bag.weights is not None:
        rows = rows * bag.weights.reshape([*shape, 1])
    if bag.padding is None:
        reduce: Any = {_SUM: rows.sum, _MEAN: rows.mean, _MAX: rows.amax}[bag.mode]
        return reduce([1])  # type: ignore[no-any-return]
    real = _real(bag, indices, rows).unsqueeze(-1)
    if bag.mode == _MAX:
        return _largest(rows, real)
    total = (rows * real).sum([1])
    return total if bag.mode == _SUM else total / real.sum([1]).clamp(1)


def _real(bag: _Bag, indices: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Ones for indices, zeros for padding, in the type of `like`."""
    return aten.ne.Scalar(indices, bag.padding).to(like.dtype)  # type: ignore[no-any-return]


def _largest(rows: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """The largest of the rows that are no padding, zero where all are."""
    far: torch.Tensor = aten.rsub.Scalar(real, 1) * torch.finfo(rows.dtype).min
    return (rows + far).amax([1]) * real.amax([1])


def _by_matrix(editor: GraphEditor, bag: _Bag) -> torch.Tensor:
    """Rows [n, columns] of all bags, reduced by a matrix [bags, n] that has a one where a row is the bag's."""
    rows = torch.embedding(bag.table, bag.indices)
    members = _members(editor, bag, rows)
    if bag.padding is not None:
        members = members * _real(bag, bag.indices, rows)
    if bag.mode == _MAX:
        return _largest(rows.unsqueeze(0), members.unsqueeze(-1))
    total = (members if bag.weights is None else members * bag.weights).mm(rows)
    return total if bag.mode == _SUM else total / members.sum([1], True).clamp(1)


def _members(editor: GraphEditor, bag: _Bag, rows: torch.Tensor) -> torch.Tensor:
    """The matrix of zeros and ones [bags, n] in the type of `rows`."""
    dtype, count = rows.dtype, rows.shape[0]
    if bag.starts is not None and isinstance(count, int):
        place, edges = torch.arange(count), torch.tensor([*bag.starts, *([] if bag.last else [count])])
        inside = (edges[:-1, None] <= place) & (place < edges[1:, None])
        return editor.stored(inside.to(dtype), f"{bag.name}.members")
    (size,) = editor.sizes(bag.indices)
    begun = (editor.arange(size) >= editor.tensor(bag.offsets).unsqueeze(1)).to(dtype)
    if bag.last:
        return begun[:-1] - begun[1:]
    return begun - torch.constant_pad_nd(begun[1:], [0, 0, 0, 1])


def renormalize_whole_tables(exported: ExportedProgram) -> Repairs:
    """Let each renormalization of a table cover all of its rows, which makes its result a constant."""
    editor = GraphEditor(exported)
    kept = [*_only_renormalized(exported)]
    editor.forget(kept)
    return _of_constants(editor.finish() if kept else exported)


@replaces(aten.embedding_renorm.default, code="renormalized", detail="max_norm applied to every row")
def _of_constants(editor: GraphEditor, node: fx.Node) -> torch.Tensor | None:
    *chain, table = _chain(node)
    if table not in editor.constants or not all(map(_only_looked_up, chain)):
        return None
    rows = editor.constant(torch.arange(table.meta["val"].shape[0]), f"{node.name}.rows")
    return editor.again(node, x=table, indices=rows)


def _only_renormalized(exported: ExportedProgram) -> Iterator[str]:
    """Yield buffers of which the program renormalizes rows, by one norm, looks them up, and does no more."""
    nodes = {node.name: node for node in exported.graph.nodes}
    for result, buffer in exported.graph_signature.buffers_to_mutate.items():
        chain = [*_chain(nodes[result])]
        table = chain.pop()
        alone = exported.graph_signature.inputs_to_buffers.get(table.name) == buffer
        if (
            chain
            and alone
            and {*readers(table, (aten.detach.default,))} == {chain[-1]}
            and all(map(_only_looked_up, chain))
        ):
            yield buffer


def _chain(node: fx.Node) -> Iterator[fx.Node]:
    """Yield renormalizations of renormalized rows, from the last one, and then the table."""
    while node.target == aten.embedding_renorm.default:
        yield node
        node = behind(operand(node, "x"), (aten.detach.default,))
    yield node


def _only_looked_up(node: fx.Node) -> bool:
    """Whether only lookups with the same indices read a renormalization, or are renormalized likewise."""
    return all(
        (u.target == aten.embedding.default and u.args[1] is node.args[1])
        or (u.target == aten.embedding_renorm.default and u.args[2:] == node.args[2:])
        or u.op == "output"
        for u in readers(node, (aten.detach.default,))
    )


@replaces(code="indices-checked", detail="a call fails where an index is outside of its table")
def indices_checked(editor: GraphEditor, node: fx.Node) -> fx.Node | None:
    """Check the indices of each lookup in a table that is constant."""
    found = lookup_in(node) if node.op == "call_function" and node not in editor.constants else None
    if found is None or found[0] not in editor.constants or found[1] in editor.constants:
        return None
    table, indices = found
    rows, signed = table.meta["val"].shape[0], node.target == aten.index.Tensor
    checked = editor.once((indices, rows, signed), lambda: _checked(editor, indices, rows, signed=signed))
    return _reading(editor, node, indices, checked)


def _checked(editor: GraphEditor, indices: fx.Node, rows: int, *, signed: bool) -> torch.Tensor:
    """`indices`, which the CPU's lookup lets through only in a table of so many rows."""
    given = editor.tensor(indices)
    tables = aten.div.Tensor_mode(given, rows, rounding_mode="floor")
    zeros = editor.stored(torch.zeros(1 + signed, 1, dtype=given.dtype), "in_table")
    nothing = aten.embedding.default(zeros, tables + 1 if signed else tables)
    return given + nothing.squeeze(-1)  # type: ignore[no-any-return]


def _reading(editor: GraphEditor, node: fx.Node, old: fx.Node, new: torch.Tensor) -> fx.Node:
    """`node` again, made of `new` in place of `old`; between the two a gather has what spreads them over the columns."""
    if old not in node.all_input_nodes:
        inner = operand(node, "index" if node.target == aten.gather.default else "x")
        old, new = inner, editor.tensor(_reading(editor, inner, old, new))
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda n: new if n is old else n)
    return editor.call(node.target, *args, **kwargs)
