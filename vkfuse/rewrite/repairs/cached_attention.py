"""Attention over a cache that is written in place, by the runtime's own operator.

The runtime's ``llama.custom_sdpa`` (impl/SDPA.cpp) lets row i of a call see the columns of the cache up to position + i,
reads no others, and repeats no keys. A program says the same by a mask over the whole cache, which it computes from the
position: here that mask is evaluated wherever a call may begin, and nothing is replaced where any of its values is another.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import fx

from vkfuse.program.tensors import greatest
from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.moves import VIEWS, behind
from vkfuse.rewrite.operands import operand, operands
from vkfuse.rewrite.repairs.attention import ATTENTION
from vkfuse.rewrite.repairs.each import replaces
from vkfuse.rewrite.repairs.in_place import counts
from vkfuse.rewrite.repairs.repeats import repeat_of
from vkfuse.runtime.device import COMMON
from vkfuse.runtime.operators.attention import weights_of

aten = torch.ops.aten

_LOWEST: Final = -1e30  # what is added to a score that is not seen, at most: its exponential is zero
_MOST: Final = 1 << 30  # values of masks that are evaluated
_AT_ONCE: Final = 1 << 24


@replaces(
    ATTENTION, code="attention-over-caches", detail="the runtime's own operator, which reads what is written"
)
def attention_over_caches(
    editor: GraphEditor, node: fx.Node, query: torch.Tensor, key: fx.Node, value: fx.Node
) -> torch.Tensor | None:
    """Replace attention over float32 caches [1, heads, columns, size] where a row sees what was written up to it."""
    given, keys, values = operands(node), _heads(key), _heads(value)
    mask: fx.Node | None = given["attn_mask"]
    if mask is None or given["dropout_p"] or not _scaled(given["scale"], query.shape[-1]):
        return None
    if not _fits(query, keys, values):
        return None
    begins: dict[fx.Node, fx.Node] = editor.once("begins", lambda: dict(_begins(node.graph)))
    for start, position in begins.items():
        seen = _Seen(mask=mask, start=start, rows=_known(query.shape[2]), columns=keys.meta["val"].shape[2])
        if editor.once(seen, lambda seen=seen: _causal(editor, seen)):
            q, k, v = (x.transpose(1, 2) for x in (query, editor.tensor(keys), editor.tensor(values)))
            out: torch.Tensor = torch.ops.vkfuse.custom_sdpa.default(q, k, v, editor.tensor(position))
            return out.transpose(1, 2)
    return None


def _heads(node: fx.Node) -> fx.Node:
    """Keys or values before they were repeated for their queries."""
    repeat = repeat_of(node)
    return node if repeat is None or repeat.dimension != 1 else repeat.source


def _fits(query: torch.Tensor, keys: fx.Node, values: fx.Node) -> bool:
    """Whether the operator takes them: one sequence, whole texels of columns, as many queries for each head."""
    shape = keys.meta["val"].shape
    static = all(isinstance(size, int) for size in (*shape, *query.shape[:2], query.shape[3]))
    kinds = {x.dtype for x in (query, keys.meta["val"], values.meta["val"])}
    if not static or len(shape) != 4 or kinds != {torch.float32} or shape != values.meta["val"].shape:
        return False
    (batch, heads, columns, size), queries = shape, query.shape
    if weights_of(queries[1], int(greatest(queries[2])), columns) >= COMMON.buffer:
        return False
    alike: bool = batch == queries[0] == 1 and size == queries[3] and queries[1] % heads == 0
    return alike and size % 4 == 0


def _known(size: Any) -> int | str:
    return size if isinstance(size, int) else str(size)


def _scaled(scale: float | None, size: int) -> bool:
    return scale is None or math.isclose(scale, 1 / math.sqrt(size), rel_tol=1e-7)


def _begins(graph: fx.Graph) -> Iterator[tuple[fx.Node, fx.Node]]:
    """Where writes into caches begin: the number that the program has, and the same as a delegate gets it."""
    for write in graph.find_nodes(op="call_function", target=torch.ops.vkfuse.update_cache.default):
        position, parts = operand(write, "position"), operand(write, "parts")
        position = position if parts == 1 else operand(position, "x")
        yield behind(position, VIEWS), position


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """A mask [..., `rows`, `columns`] of a call that begins at `start`; rows an expression where they are dynamic."""

    mask: fx.Node
    start: fx.Node
    rows: int | str
    columns: int


def _causal(editor: GraphEditor, seen: _Seen) -> bool:
    """Whether row i sees columns 0 to start + i and no others, wherever a call may begin that ends within the cache."""
    if isinstance(seen.rows, str):
        return _causal_at_any_length(editor, seen, seen.rows)
    begins = seen.columns - seen.rows + 1
    if begins < 1 or begins * seen.rows * seen.columns > _MOST:
        return False
    run = _function(editor, seen.mask, seen.start)
    value, rows, columns = seen.start.meta["val"], torch.arange(seen.rows), torch.arange(seen.columns)
    if run is None:
        return False

    def right(start: torch.Tensor) -> torch.Tensor:
        return _is(run(start.to(value.dtype).reshape(value.shape)), columns <= (rows + start)[:, None])

    at_once = max(1, _AT_ONCE // (seen.rows * seen.columns))
    parts: tuple[torch.Tensor, ...] = torch.split(torch.arange(begins), at_once)
    return all(bool(torch.vmap(right)(some).all()) for some in parts)


def _causal_at_any_length(editor: GraphEditor, seen: _Seen, rows: str) -> bool:
    """The same of any number of rows: what is computed place by place from positions that follow each other."""
    shape = [*map(_known, seen.mask.meta["val"].shape)]
    if shape[-2:] != [rows, seen.columns] or rows in shape[:-2] or seen.columns**2 > _MOST:
        return False
    places = next((n for n in editor.constants.expression(seen.mask) if _follow(n, seen, editor)), None)
    run = None if places is None else _function(editor, seen.mask, places, size=(rows, seen.columns))
    if places is None or run is None:
        return False
    columns = torch.arange(seen.columns, dtype=places.meta["val"].dtype)
    return bool(_is(run(columns), columns <= columns[:, None]).all())


def _follow(node: fx.Node, seen: _Seen, editor: GraphEditor) -> bool:
    """Whether a node is [rows] of start, start + 1 and so on."""
    if node.target != aten.add.Tensor or operand(node, "alpha") != 1:
        return False
    count, start = operand(node, "x"), operand(node, "other")
    count, start = (start, count) if count is seen.start else (count, start)
    rows = tuple(map(str, node.meta["val"].shape)) == (str(seen.rows),)
    return start is seen.start and isinstance(count, fx.Node) and rows and counts(count, editor.constants)


def _is(mask: torch.Tensor, allowed: torch.Tensor) -> torch.Tensor:
    """For each value of a mask whether it allows what is `allowed`, and nothing else."""
    if mask.dtype == torch.bool:
        return mask == allowed
    return torch.where(allowed, mask == 0, mask <= _LOWEST)


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
    if of not in steps or any(n.op != "call_function" for n in computed):
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
    order: dict[fx.Node, None] = {}

    def visit(node: fx.Node) -> None:
        if node in order:
            return
        if node is not of and node not in editor.constants and node.target != aten.sym_size.int:
            for source in node.all_input_nodes:
                visit(source)
        order[node] = None

    visit(result)
    return list(order)


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
