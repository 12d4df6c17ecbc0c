"""What a mask of attention lets rows see, wherever in a cache a call may begin.

A program computes the mask of a call from the position that it writes its caches from. The mask is evaluated for every
position at which the rows of a call end within the cache, which is all that a call may be given.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import torch
from torch import fx

from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.moves import VIEWS, behind
from vkfuse.rewrite.operands import operand
from vkfuse.rewrite.repairs.in_place import counts

aten = torch.ops.aten

# For each value of a mask, or for each row, whether something holds; given what a causal one allows.
Property: TypeAlias = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

_MOST: Final = 1 << 30  # values of masks that are evaluated
_AT_ONCE: Final = 1 << 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Begin:
    """Where a call begins that writes `rows` into a cache of `columns`; rows an expression where they are dynamic.

    `start` is the number that the program has, `position` the same as a delegate gets it.
    """

    start: fx.Node
    position: fx.Node
    rows: int | str
    columns: int


def begins(graph: fx.Graph) -> Iterator[Begin]:
    """Where the writes into caches begin."""
    for write in graph.find_nodes(op="call_function", target=torch.ops.vkfuse.update_cache.default):
        parts, position = operand(write, "parts"), operand(write, "position")
        columns, rows = (operand(write, name).meta["val"].shape[1] // parts for name in ("cache", "value"))
        position = position if parts == 1 else operand(position, "x")
        yield Begin(start=behind(position, VIEWS), position=position, rows=known(rows), columns=int(columns))


def known(size: Any) -> int | str:
    """A size, an expression where it is dynamic."""
    return size if isinstance(size, int) else str(size)


def holds(editor: GraphEditor, mask: fx.Node, begin: Begin, has: Property) -> bool:
    """Whether a mask [..., rows, columns] has what `has` says, wherever a call may begin; false where nobody knows."""
    shape = [*map(known, mask.meta["val"].shape)]
    if shape[-2:] != [begin.rows, begin.columns]:
        return False
    if isinstance(begin.rows, str):
        return begin.rows not in shape[:-2] and _holds_at_any_length(editor, mask, begin, has)
    return _holds_of(editor, mask, begin, begin.rows, has)


def _holds_of(editor: GraphEditor, mask: fx.Node, begin: Begin, rows: int, has: Property) -> bool:
    """The same of a known number of rows: evaluated from each start."""
    starts = begin.columns - rows + 1
    if starts < 1 or starts * rows * begin.columns > _MOST:
        return False
    run, value = _function(editor, mask, begin.start), begin.start.meta["val"]
    if run is None:
        return False

    def right(start: torch.Tensor) -> torch.Tensor:
        allowed = torch.arange(begin.columns) <= (torch.arange(rows) + start)[:, None]
        return has(run(start.to(value.dtype).reshape(value.shape)), allowed)

    at_once = max(1, _AT_ONCE // (rows * begin.columns))
    some: tuple[torch.Tensor, ...] = torch.split(torch.arange(starts), at_once)
    try:
        return all(bool(torch.vmap(right)(part).all()) for part in some)
    except RuntimeError:  # torch.vmap takes no operator whose shapes depend on values
        return False


def _holds_at_any_length(editor: GraphEditor, mask: fx.Node, begin: Begin, has: Property) -> bool:
    """The same of any number of rows: what is computed place by place from positions that follow each other."""
    if begin.columns**2 > _MOST:
        return False
    places = next((n for n in editor.constants.expression(mask) if _follow(n, begin, editor)), None)
    size = (str(begin.rows), begin.columns)
    run = None if places is None else _function(editor, mask, places, size=size)
    if places is None or run is None:
        return False
    columns = torch.arange(begin.columns, dtype=places.meta["val"].dtype)
    return bool(has(run(columns), columns <= columns[:, None]).all())


def _follow(node: fx.Node, begin: Begin, editor: GraphEditor) -> bool:
    """Whether a node is [rows] of start, start + 1 and so on."""
    if node.target != aten.add.Tensor or operand(node, "alpha") != 1:
        return False
    count, start = operand(node, "x"), operand(node, "other")
    count, start = (start, count) if count is begin.start else (count, start)
    rows = tuple(map(str, node.meta["val"].shape)) == (str(begin.rows),)
    return start is begin.start and isinstance(count, fx.Node) and rows and counts(count, editor.constants)


def _function(
    editor: GraphEditor, result: fx.Node, of: fx.Node, size: tuple[str, int] | None = None
) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """What computes `result` from `of`; None where it depends on anything else.

    With a `size`, an expression and what it shall be, None too where any value is computed from more than one of `of`.
    """
    constants, steps = editor.constants, _steps(editor, result, of)
    fixed: dict[fx.Node, Any] = {n: constants.value(n) for n in steps if n in constants}
    if size is not None:
        fixed |= {
            n: size[1] for n in steps if n.target == aten.sym_size.int and str(n.meta["val"]) == size[0]
        }
    computed = [n for n in steps if n is not of and n not in fixed]
    if of not in steps or any(n.op != "call_function" or n.target == aten.sym_size.int for n in computed):
        return None
    if size is not None and not _PLACE_BY_PLACE.issuperset(n.target for n in computed):
        return None

    def run(value: torch.Tensor) -> torch.Tensor:
        known: dict[fx.Node, Any] = {**fixed, of: value}
        for step in computed:
            args, kwargs = fx.node.map_arg((step.args, step.kwargs), known.__getitem__)
            known[step] = step.target(*args, **kwargs)  # type: ignore[operator]
        return known[result]  # type: ignore[no-any-return]

    return run


def _steps(editor: GraphEditor, result: fx.Node, of: fx.Node) -> list[fx.Node]:
    """What `result` is computed from, in order, no further back than to `of` and to constants."""
    order, needed = editor.constants.expression(result), {result}
    for node in reversed(order):
        given = node is of or node in editor.constants or node.target == aten.sym_size.int
        if node in needed and not given:
            needed.update(node.all_input_nodes)
    return [node for node in order if node in needed]


_PLACE_BY_PLACE: Final = frozenset(
    {
        *(getattr(aten, name).Tensor for name in ("le", "lt", "ge", "gt", "eq", "ne", "add", "sub", "mul")),
        *(getattr(aten, name).Scalar for name in ("le", "lt", "ge", "gt", "eq", "ne")),
        *(aten.__and__.Tensor, aten.__or__.Tensor, aten.bitwise_and.Tensor, aten.bitwise_or.Tensor),
        *(
            aten.logical_and.default,
            aten.logical_or.default,
            aten.logical_not.default,
            aten.bitwise_not.default,
        ),
        *(aten.where.self, aten.where.Scalar, aten.scalar_tensor.default),
        *(aten.masked_fill.Scalar, aten.full.default, aten.zeros.default, aten.ones.default),
        *(aten.index.Tensor, aten.index_select.default),
        *(aten._to_copy.default, aten.to.dtype, aten.unsqueeze.default, aten.expand.default),  # noqa: SLF001 - the operator's name
    }
)
