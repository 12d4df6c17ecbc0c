"""Rows written into a cache where it lies, on the GPU.

The runtime's update_cache writes rows [1, S, heads, columns] into a cache [1, C, heads, columns] from a position on, and a
delegate's own state is such a cache: what reads it gets its dimensions back in the program's order. It takes one position,
so the rows have to follow each other: one row, or rows at ``arange(S) + position``. It also zeroes the rows behind them
that its work groups reach: a row is written in such parts that they reach none.

A call may read other rows than it leaves to the next: those are written over the others when all that reads them is done.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Final

import torch
from torch import fx
from torch.export import ExportedProgram

from vkfuse.multiples import round_up
from vkfuse.program.parts import constants_of
from vkfuse.program.tensors import described
from vkfuse.rewrite.constants import Constants
from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.moves import MOVES, readers
from vkfuse.rewrite.operands import operand, operands
from vkfuse.rewrite.repairs.each import Repairs, done
from vkfuse.rewrite.repairs.writes import Write, write_of
from vkfuse.runtime.operators.attention import rows_reached

aten = torch.ops.aten

_MOST_PARTS: Final = (
    8  # invocations of a work group along one of three axes that are longer than one, at most
)
_ALWAYS: Final = 128  # rows of so many columns, or several times as many, in eight parts fill work groups


@dataclass(frozen=True, slots=True, kw_only=True)
class _InPlace:
    """A write into the state of the placeholder `write.cache`, from `start`, an integer tensor of one element, on.

    `last`, and the write that it is, writes the same rows over it, and is what the next call finds.
    """

    write: Write
    start: fx.Node
    form: "_Form"
    last: tuple[fx.Node, Write] | None


def cache_writes_in_place(exported: ExportedProgram) -> Repairs:
    """Replace each write of rows that follow each other into a float buffer that nothing else reads as it was."""
    editor = GraphEditor(exported)
    written = exported.graph_signature.buffers_to_mutate
    buffers = exported.graph_signature.inputs_to_buffers
    found = {
        node: each
        for node in exported.graph.nodes
        if (each := _in_place(node, editor.constants)) is not None
        and written.get((each.last or (node,))[0].name) == buffers.get(each.write.cache.name, "")
    }
    tensors = constants_of(exported)
    for node, each in found.items():
        first = each.form.rows(tensors[each.write.cache.name])
        with editor.before(node):
            stored = editor.tensor(editor.restate(each.write.cache, first))
            state, cache = _written(editor, each, each.write, stored)
        editor.replace(node, cache)
        if each.last is not None:
            last, over = each.last
            reading = [editor.node(reader) for reader in _readers(node, last)]
            with editor.before(last):
                state, cache = _written(editor, each, over, state, reading)
            editor.replace(last, cache)
        editor.returns(cache, state)
    names = (node.name for node in found)
    return done(editor, names, code="cache-writes-in-place", detail="rows of state on the GPU")


def _written(
    editor: GraphEditor, each: _InPlace, write: Write, state: torch.Tensor, reading: Sequence[fx.Node] = ()
) -> tuple[torch.Tensor, torch.Tensor]:
    """The state after `write`, behind what reads it as it was before, and the cache as the program has it."""
    form, start = each.form, editor.node(each.start)
    value = form.rows(write.in_full(editor))
    number = editor.once(("number", start, form.parts), lambda: _number(editor.tensor(start), form.parts))
    after = torch.ops.vkfuse.update_cache.default(state, value, number, form.parts, [*reading])
    return after, form.restored(after)


def _readers(node: fx.Node, last: fx.Node) -> list[fx.Node]:
    """What computes with `node` before `last` is written over it, whatever moves its elements looked through."""
    found: list[fx.Node] = []
    for user in node.users:
        if user is not last:
            found += readers(user, _MOVED) if user.target in _MOVED else [user]
    return [n for n in dict.fromkeys(found) if n.op == "call_function"]


def _number(start: torch.Tensor, parts: int) -> torch.Tensor:
    """The part that a write begins at, apart from what else reads the position: it is no tensor in a delegate."""
    number = start.reshape([1] * (start.ndim + 1))
    return number if parts == 1 else number * parts


@dataclass(frozen=True, slots=True, kw_only=True)
class _Form:
    """A cache of `shape` whose rows are along `dimension`, as [1, rows * parts, heads, columns].

    A row may be written in `parts`, in other heads and columns than its own, with columns added to all of them, so that
    work groups end where rows do.
    """

    shape: tuple[int, ...]
    dimension: int
    parts: int
    heads: int
    columns: int

    @property
    def _added(self) -> int:
        return self.parts * self.heads * self.columns - _width(self.shape, self.dimension)

    @property
    def _order(self) -> list[int]:
        return [self.dimension, *(d for d in range(len(self.shape)) if d != self.dimension)]

    @property
    def _plain(self) -> bool:
        """Whether only the second and third of four dimensions change places, if any: no view is needed."""
        four = len(self.shape) == 4 and self.shape[0] == 1 and self.dimension in {1, 2}
        return four and self.parts == 1 and self.heads == self.shape[3 - self.dimension]

    def rows(self, rows: torch.Tensor) -> torch.Tensor:
        """Rows to be written, or all of them, as they are stored."""
        if self._plain:
            return self._swapped(rows)
        permuted = rows if self._order == sorted(self._order) else rows.permute(self._order)
        if self._added:
            flat = permuted.reshape([-1, _width(self.shape, self.dimension)])
            permuted = torch.constant_pad_nd(flat, [0, self._added], 0.0)
        return permuted.reshape([1, -1, self.heads, self.columns])

    def restored(self, cache: torch.Tensor) -> torch.Tensor:
        """The cache as the program has it."""
        if self._plain:
            return self._swapped(cache)
        if self._added:
            width = _width(self.shape, self.dimension)
            cache = aten.slice.Tensor(cache.reshape([-1, width + self._added]), 1, 0, width)
        viewed = cache.reshape([self.shape[d] for d in self._order])
        back = [self._order.index(d) for d in range(len(self.shape))]
        return viewed if back == sorted(back) else viewed.permute(back)

    def _swapped(self, x: torch.Tensor) -> torch.Tensor:
        return x if self.dimension == 1 else x.permute([0, 2, 1, 3])


def _form(write: Write) -> _Form | None:
    """The first form of a cache in which no number of rows that may come reaches behind them."""
    shape, dimension = tuple(write.cache.meta["val"].shape), write.dimension
    most = min(described(write.positions.meta["val"], constant=False).dims[0], shape[dimension])
    one = isinstance(write.positions.meta["val"].shape[0], int)
    counts = (most,) if one else tuple(range(1, most + 1))
    for parts, heads, columns in _splits(_width(shape, dimension), shape[-1]):
        if all(rows_reached(columns, n * parts, heads) == n * parts for n in counts):
            return _Form(shape=shape, dimension=dimension, parts=parts, heads=heads, columns=columns)
    return None


def _splits(width: int, columns: int) -> Iterator[tuple[int, int, int]]:
    """Parts, heads and columns that a row of `width` can be written in, its own ones first, whole texels else."""
    yield 1, width // columns, columns
    for whole in (width, round_up(width, _ALWAYS)):
        for parts in range(1, _MOST_PARTS + 1):
            for heads in range(1, whole // parts + 1):
                if whole % (parts * heads * 4) == 0:
                    yield parts, heads, whole // (parts * heads)


def _width(shape: tuple[int, ...], dimension: int) -> int:
    """Numbers in a row."""
    return prod(shape) // shape[dimension]


def _in_place(node: fx.Node, constants: Constants) -> _InPlace | None:
    write: Write | None = write_of(node)
    if write is None or write.cache.op != "placeholder" or len(write.cache.users) != 1:
        return None
    value = write.cache.meta["val"]
    if (
        value.dtype not in {torch.float32, torch.float16}
        or write.dimension == value.ndim - 1
        or value.ndim < 2
    ):
        return None
    start = _start(write, constants)
    form = None if start is None else _form(write)
    if start is None or form is None:
        return None
    return _InPlace(write=write, start=start, form=form, last=_written_over(node, write))


def _written_over(node: fx.Node, write: Write) -> tuple[fx.Node, Write] | None:
    """What writes other rows in the place of those that `node` wrote, for the next call alone."""
    for user in node.users:
        over = write_of(user)
        if over is None or over.cache is not node or not all(reader.op == "output" for reader in user.users):
            continue
        if (over.positions, over.dimension) == (write.positions, write.dimension):
            return user, over
    return None


def _start(write: Write, constants: Constants) -> fx.Node | None:
    """The first of positions that follow each other, None where nobody knows whether they do."""
    index = write.positions
    if _is_one(index):
        return None if index in constants else index
    if index.target != aten.add.Tensor or operand(index, "alpha") != 1:
        return None
    terms = [operand(index, name) for name in ("x", "other")]
    if not all(isinstance(term, fx.Node) for term in terms):
        return None
    for count, start in (terms, terms[::-1]):
        if _is_one(start) and start not in constants and counts(count, constants):
            return start  # type: ignore[no-any-return]
    return None


def _is_one(node: fx.Node) -> bool:
    shape = node.meta["val"].shape
    return all(isinstance(size, int) for size in shape) and prod(shape) == 1


def counts(node: fx.Node, constants: Constants) -> bool:
    """Whether `node` is 0, 1, 2 and so on."""
    if node.meta["val"].ndim != 1:
        return False
    if node in constants:
        value = constants.value(node)
        return torch.equal(value, torch.arange(len(value), dtype=value.dtype))
    if node.target not in {aten.arange.default, aten.arange.start, aten.arange.start_step}:
        return False
    given = operands(node)
    return (given.get("start", 0), given.get("step", 1)) == (0, 1)


_MOVED: Final = (*MOVES, aten.repeat_interleave.self_int)
