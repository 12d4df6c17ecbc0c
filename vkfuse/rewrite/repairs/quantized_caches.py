"""Caches of quantized rows, kept as the floats that they stand for.

ExecuTorch's quantized caches (examples/models/llama/source_transformation/custom_kv_cache.py) write int8 rows, their scales
and zero points, and dequantize all of it in each call. A delegate keeps floats only, so that each cache would cross over
with every call. What each row is dequantized to depends on nothing but the row: the rows can be dequantized before they
are written. The values are the same; a cache of floats takes four times the memory of one of bytes.

Rows that are read as they came, and quantized only for later calls, are written so first; what later calls find, last.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import fx
from torch.export import ExportedProgram
from torch.export.graph_signature import ExportGraphSignature

from vkfuse.program.parts import constants_of
from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.repairs.each import Repairs, done
from vkfuse.rewrite.repairs.writes import Write, write_of

aten = torch.ops.aten


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cache:
    """`read` is computed from what `writes` left of the state of integers, scales and zero points, by `steps` in order."""

    read: fx.Node
    steps: tuple[fx.Node, ...]
    writes: Mapping[fx.Node, Write]

    @property
    def first(self) -> tuple[fx.Node, Write]:
        """The write of what has as many columns as the floats."""
        return next(
            (n, w) for n, w in self.writes.items() if n.meta["val"].shape == self.read.meta["val"].shape
        )

    @property
    def over(self) -> tuple[fx.Node, Write] | None:
        """The one reader of the floats, where it writes other rows to the same positions."""
        readers = list(self.read.users)
        write = write_of(readers[0]) if len(readers) == 1 else None
        own = self.first[1]
        same = (
            write
            and write.cache is self.read
            and (write.positions, write.dimension) == (own.positions, own.dimension)
        )
        return (readers[0], write) if write and same else None


def quantized_caches_as_floats(exported: ExportedProgram) -> Repairs:
    """Keep the floats that quantized state stands for, where a program reads nothing else of it."""
    editor, tensors = GraphEditor(exported), constants_of(exported)
    signature = exported.graph_signature
    state = {n: b for n, b in signature.inputs_to_buffers.items() if n in tensors}
    found: list[_Cache] = []
    for node in reversed(_of_integers(exported.graph)):
        cache = None if any(node in each.steps for each in found) else _cache(node, state, signature)
        if cache is not None:
            found.append(cache)
    for cache in found:
        _replace(editor, cache, tensors)
    names, detail = (
        (cache.first[1].cache.name for cache in found),
        "floats on the GPU, dequantized before they are written",
    )
    return done(editor, names, code="quantized-caches-as-floats", detail=detail)


def _of_integers(graph: fx.Graph) -> list[fx.Node]:
    """What is computed row by row of writes of integers, in order."""
    found: dict[fx.Node, None] = {}
    for node in graph.nodes:
        write = write_of(node)
        integers = write is not None and not node.meta["val"].is_floating_point()
        if integers or (_by_rows(node) and any(source in found for source in node.all_input_nodes)):
            found[node] = None
    return list(found)


def _replace(editor: GraphEditor, cache: _Cache, tensors: Mapping[str, torch.Tensor]) -> None:
    node, write = cache.first
    buffers = editor.program.graph_signature.inputs_to_buffers
    before = _computed(cache, {n: tensors[w.cache.name] for n, w in cache.writes.items()}, tensors)
    with editor.before(cache.read):
        rows = _rows(editor, cache)
    floats, positions = editor.tensor(editor.restate(write.cache, before)), editor.tensor(write.positions)
    over = cache.over
    if over is None:
        with editor.before(cache.read):
            kept = read = floats.index_copy(write.dimension, positions, rows)
    else:
        with editor.before(over[0]):
            own = over[1].in_full(editor)
            read = floats.index_copy(write.dimension, positions, own)
        with editor.before(next(iter(editor.program.graph.find_nodes(op="output")))):
            kept = read.index_copy(write.dimension, positions, rows)
    editor.replace(cache.read if over is None else over[0], read)
    editor.forget([buffers[w.cache.name] for n, w in cache.writes.items() if n is not node])
    editor.returns(editor.node(node), kept)


def _rows(editor: GraphEditor, cache: _Cache) -> torch.Tensor:
    """The rows that are written, dequantized."""
    made: dict[fx.Node, Any] = {n: w.in_full(editor) for n, w in cache.writes.items()}
    for step in cache.steps:
        args, kwargs = fx.node.map_arg((step.args, step.kwargs), lambda n: made.get(n, n))
        made[step] = editor.tensor(editor.call(step.target, *args, **kwargs))
    row: torch.Tensor = made[cache.read]
    return row


def _computed(
    cache: _Cache, values: dict[fx.Node, torch.Tensor], tensors: Mapping[str, torch.Tensor]
) -> torch.Tensor:
    """What the first values of the state are dequantized to."""

    def value(node: fx.Node) -> torch.Tensor:
        return values[node] if node in values else tensors[node.name]

    for step in cache.steps:
        args, kwargs = fx.node.map_arg((step.args, step.kwargs), value)
        operator: Any = step.target
        values[step] = operator(*args, **kwargs)
    return values[cache.read]


def _cache(node: fx.Node, state: Mapping[str, str], signature: ExportGraphSignature) -> _Cache | None:
    """The quantized cache of which `node` is the floats, none of its parts read by anything else."""
    value = node.meta.get("val")
    if not _by_rows(node) or not isinstance(value, torch.Tensor) or not value.is_floating_point():
        return None
    behind = _behind(node)
    steps = sorted(n for n in behind if _by_rows(n))
    writes = {n: w for n in behind if (w := write_of(n)) is not None}
    others = {n for n in behind if n not in steps and n not in writes}
    own = [
        w
        for n, w in writes.items()
        if not n.meta["val"].is_floating_point() and n.meta["val"].shape == value.shape
    ]
    written, returned = signature.buffers_to_mutate, {*signature.user_outputs}
    places = {(w.positions, w.dimension - len(w.cache.meta["val"].shape)) for w in writes.values()}
    kept = all(
        written.get(n.name) == state.get(w.cache.name, "") and list(w.cache.users) == [n]
        for n, w in writes.items()
    )
    fixed = state.keys() - {n for n, b in state.items() if b in written.values()}
    constant = all(n.op == "placeholder" and n.name in fixed and _is_one_row(n, own) for n in others)
    apart = all(_read_by(n, steps) and n.name not in returned for n in (*writes, *steps) if n is not node)
    if not own or len(places) != 1 or not (kept and constant and apart):
        return None
    return _Cache(read=node, steps=tuple(steps), writes=writes)


def _behind(node: fx.Node) -> list[fx.Node]:
    """`node` and what it is computed from, down to writes and to what is not done row by row."""
    found, left = dict[fx.Node, None](), [node]
    while left:
        last = left.pop()
        if last not in found:
            found[last] = None
            left.extend(last.all_input_nodes if _by_rows(last) else ())
    return list(found)


def _read_by(node: fx.Node, steps: list[fx.Node]) -> bool:
    return all(user in steps or user.op == "output" for user in node.users)


def _is_one_row(node: fx.Node, own: list[Write]) -> bool:
    """Whether a constant is the same for all rows."""
    shape = node.meta["val"].shape
    behind = len(own[0].cache.meta["val"].shape) - own[0].dimension if own else 0
    return len(shape) < behind or shape[-behind] == 1


def _by_rows(node: fx.Node) -> bool:
    return node.target in _BY_ROWS or str(node.target) == "quantized_decomposed.dequantize_per_token.default"


_BY_ROWS: Final = frozenset(
    {
        *(aten.mul.Tensor, aten.sub.Tensor, aten.add.Tensor, aten.div.Tensor),
        aten._to_copy.default,  # noqa: SLF001 - the operator's name
    }
)
