"""Operators of more than four dimensions, which Vulkan tensors have not, in as many as they need.

Dimensions of one say nothing, and neighbours that an operator treats alike are one: an elementwise operator has as many as
its operands broadcast differently, one along a dimension has what is in front of it, it, and what is behind. Mamba 2's
products of chunks, ``einsum("bclhn,bcshn->bclsh", c, b)``, are those of a batch of matrices; windows and patches of an
image, shuffled channels, the queries, keys and values of ``nn.MultiheadAttention``, and the columns that an interleaved
rotary embedding takes in turn, go through a fifth dimension and back. Values stay where they lie.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import fx
from torch.export import ExportedProgram

from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.moves import COPIES, PERMUTATIONS, VIEWS, blocks_of, order_of
from vkfuse.rewrite.operands import is_dynamic, operand, operands
from vkfuse.rewrite.repairs.each import Repairs, done
from vkfuse.rewrite.traced import untraced

aten = torch.ops.aten

MOST: Final = 4
_AS_THEY_LIE: Final = frozenset({*VIEWS, *COPIES, aten.unsqueeze.default, aten.squeeze.dim})
_BLANKS: Final[Mapping[Any, float]] = {aten.zeros_like.default: 0.0, aten.ones_like.default: 1.0}


_Size = int | torch.SymInt


@dataclass(frozen=True, slots=True, kw_only=True)
class _Flat:
    """Tensors of the program as others of at most four dimensions that have the same values in the same order."""

    editor: GraphEditor
    known: dict[fx.Node, torch.Tensor] = field(default_factory=dict)

    def of(self, node: fx.Node) -> torch.Tensor:
        """The values of a node, in whatever sizes."""
        value = self.known.get(node)
        return self.editor.tensor(node) if value is None else value

    def laid(self, node: fx.Node, sizes: Sequence[_Size]) -> torch.Tensor:
        """The values of a node, in `sizes`; of a constant, that itself: no delegate keeps what has more than four."""
        if _rank(node) > MOST and node in self.editor.constants:
            return self.editor.stored(self.editor.constants.value(node).reshape(sizes), node.name)
        return self.viewed(self.of(node), sizes)

    def viewed(self, value: torch.Tensor, sizes: Sequence[_Size]) -> torch.Tensor:
        """The same values in `sizes`; _UnreadSizesError where more than one of these is no input's."""
        if _same(value.shape, sizes):
            return value
        read = [self.editor.input_size(size) for size in sizes]
        open_ = [at for at, size in enumerate(sizes) if isinstance(size, torch.SymInt)]
        unread = [at for at in open_ if read[at] is None]
        if len(unread) > 1:
            raise _UnreadSizesError
        for at in (unread or open_)[:1]:
            read[at] = -1
        return value.reshape(read)


class _UnreadSizesError(Exception):
    """Sizes that only products of others give, as a view cannot say them."""


def sums_in_four_dimensions(exported: ExportedProgram) -> Repairs:
    """Replace Einstein's sums that torch makes in more than four dimensions, which have as many names.

    DeepSeek's queries against a table, ``einsum("bshd,hdc->bshc", q, w)``: before constants are folded, since it is turned.
    """
    return _replaced(exported, _has_many_names)


def operators_in_four_dimensions(exported: ExportedProgram) -> Repairs:
    """Replace operators that read or make tensors of more than four dimensions."""
    return _replaced(exported, _is_large)


def _replaced(exported: ExportedProgram, wanted: Callable[[fx.Node], bool]) -> Repairs:
    editor, found = GraphEditor(exported), []
    flat = _Flat(editor=editor)
    for node in exported.graph.nodes:
        rule = _rule(node) if wanted(node) and node not in editor.constants else None
        if rule is None:
            continue
        with editor.before(node), suppress(_UnreadSizesError):
            made = rule(flat, node)
            if made is None:
                continue
            if node.target not in _AS_THEY_LIE or _rank(node) <= MOST:
                editor.replace(node, flat.viewed(made, _shape(node)))
                found.append(node.name)
            flat.known[node] = made
    detail = "dimensions that stay side by side as one"
    return done(editor, found, code="operators-in-four-dimensions", detail=detail)


_Rule = Callable[[_Flat, fx.Node], torch.Tensor | None]


def _has_many_names(node: fx.Node) -> bool:
    if node.target != aten.einsum.default:
        return False
    return len({*filter(str.isalpha, operand(node, "equation"))}) > MOST


def _is_large(node: fx.Node) -> bool:
    """Whether a call, of tensors alone, reads or makes one of more than four dimensions."""
    values = [of.meta.get("val") for of in (node, *node.all_input_nodes)]
    tensors = [value for value in values if isinstance(value, torch.Tensor)]
    alone = all(isinstance(value, (torch.Tensor, torch.SymInt)) for value in values)
    return node.op == "call_function" and alone and any(value.ndim > MOST for value in tensors)


def _rule(node: fx.Node) -> _Rule | None:
    if node.target in _RULES:
        return _RULES[node.target]
    pointwise = isinstance(node.target, torch._ops.OpOverload) and torch.Tag.pointwise in node.target.tags  # noqa: SLF001
    return _elementwise if pointwise else None


def _shape(node: fx.Node) -> list[_Size]:
    return [*node.meta["val"].shape]


def _same(one: Sequence[_Size], other: Sequence[_Size]) -> bool:
    """Whether sizes are the same, compared as expressions, without a guard."""
    return [*map(str, one)] == [*map(str, other)]


def _is_one(size: _Size) -> bool:
    return isinstance(size, int) and size == 1


def _rank(node: fx.Node) -> int:
    return len(_shape(node))


def _same_values(flat: _Flat, node: fx.Node) -> torch.Tensor | None:
    """A view or a copy."""
    source = operand(node, "x")
    small = _rank(source) <= MOST or source in flat.known
    return flat.of(source) if small else None


def _elementwise(flat: _Flat, node: fx.Node) -> torch.Tensor | None:
    """Elements each by itself, or an expansion: dimensions that the same operands broadcast, as one."""
    shape = _shape(node)
    parts = [of for of in node.all_input_nodes if isinstance(of.meta["val"], torch.Tensor)]
    padded = {part: [*[1] * (len(shape) - _rank(part)), *_shape(part)] for part in parts}
    broadcast = [tuple(_is_one(size[d]) for size in padded.values()) for d in range(len(shape))]
    runs = _runs([[d] for d in range(len(shape)) if not _is_one(shape[d])], broadcast)
    if len(runs) > MOST:
        return None
    expands = node.target == aten.expand.default
    laid = {
        part: flat.laid(part, [math.prod(size[d] for d in run) for run in runs])
        for part, size in padded.items()
        if _rank(part) or expands  # a number has no say in the type of the result
    }
    if expands:
        return _expanded(flat, laid[parts[0]], [math.prod(shape[d] for d in run) for run in runs])
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda of: untraced(laid.get(of, of)))
    return flat.editor.tensor(flat.editor.call(node.target, *args, **kwargs))


def _expanded(flat: _Flat, value: torch.Tensor, sizes: Sequence[_Size]) -> torch.Tensor:
    new = [
        flat.editor.input_size(size) if _is_one(of) else -1
        for of, size in zip(value.shape, sizes, strict=True)
    ]
    if None in new:
        raise _UnreadSizesError
    return value.expand(new)


def _runs(runs: list[list[int]], kinds: Sequence[Any], most: int = MOST) -> list[list[int]]:
    """Dimensions, as many of those next to each other that are of one kind together as make them `most`."""
    while len(runs) > most:
        at = next((i for i in range(1, len(runs)) if kinds[runs[i - 1][-1]] == kinds[runs[i][0]]), None)
        if at is None:
            break
        runs[at - 1 : at + 1] = [runs[at - 1] + runs[at]]
    return runs


def _along(flat: _Flat, node: fx.Node) -> torch.Tensor | None:
    """An operator along one dimension, or several next to each other."""
    source, dim = operand(node, "x"), operand(node, "dim")
    several = isinstance(dim, (list, tuple))
    dims = sorted(d % _rank(source) for d in (dim if several else [dim])) if dim not in (None, []) else []
    if not dims or dims != [*range(dims[0], dims[0] + len(dims))]:
        return None
    shape = _shape(source)
    sides = [(d > dims[-1]) - (d < dims[0]) for d in range(len(shape))]
    others = [[d] for d in range(len(shape)) if sides[d] and not _is_one(shape[d])]
    runs = _runs(sorted([*others, dims]), sides, 3 if is_dynamic(source) else MOST)
    laid, place = flat.laid(source, [math.prod(shape[d] for d in run) for run in runs]), runs.index(dims)
    return flat.editor.again(node, x=laid, dim=[place] if several else place)


def _joined(flat: _Flat, node: fx.Node) -> torch.Tensor:
    """Tensors one behind the other along a dimension, or along a new one."""
    dim, parts = operand(node, "dim") % _rank(node), operand(node, "tensors")
    front, behind = math.prod(_shape(node)[:dim]), math.prod(_shape(node)[dim + 1 :])
    within = [1 if node.target == aten.stack.default else _shape(part)[dim] for part in parts]
    laid = [flat.laid(part, [front, size, behind]) for part, size in zip(parts, within, strict=True)]
    return torch.cat(laid, 1)


def _multiplied(flat: _Flat, node: fx.Node) -> torch.Tensor | None:
    """A product of matrices on either side, or of as many as there are beside them: batches that are alike as one."""
    parts = [*operands(node).values()]
    most = max(map(_rank, parts)) - 2
    batches = [[*[1] * (most + 2 - _rank(part)), *_shape(part)[:-2]] for part in parts]
    single = [tuple(_is_one(of[d]) for of in batches) for d in range(most)]
    runs = _runs([[d] for d in range(most) if not all(single[d])], single, MOST - 2)
    if len(runs) > MOST - 2 or min(map(_rank, parts)) < 2:
        return None
    sizes = [[math.prod(of[d] for d in run) for run in runs if not all(map(_is_one, of))] for of in batches]
    first, second = (flat.laid(of, [*size, *_shape(of)[-2:]]) for of, size in zip(parts, sizes, strict=True))
    return first.matmul(second)


def _padded(flat: _Flat, node: fx.Node) -> torch.Tensor | None:
    """A number around some dimensions."""
    source, pad = operand(node, "x"), operand(node, "pad")
    widths = [(0, 0)] * (_rank(source) - len(pad) // 2) + [*zip(pad[::2], pad[1::2], strict=True)][::-1]
    kept = [d for d, size in enumerate(_shape(source)) if any(widths[d]) or not _is_one(size)]
    runs = _runs([[d] for d in kept], [d + 1 if any(of) else 0 for d, of in enumerate(widths)])
    if len(runs) > MOST or operands(node).get("mode", "constant") != "constant":
        return None
    laid = flat.laid(source, [math.prod(_shape(source)[d] for d in run) for run in runs])
    return flat.editor.again(node, x=laid, pad=[n for run in reversed(runs) for n in widths[run[0]]])


def _blank(flat: _Flat, node: fx.Node) -> torch.Tensor:
    if is_dynamic(node):
        return flat.editor.again(node, x=flat.of(operand(node, "x")))
    number = torch.full([math.prod(_shape(node))], _BLANKS[node.target], dtype=node.meta["val"].dtype)
    return flat.editor.stored(number, "blank")


def _permuted(flat: _Flat, node: fx.Node) -> torch.Tensor:
    source = operand(node, "x")
    return _turned(flat, source, order_of(node))


def _turned(flat: _Flat, node: fx.Node, order: Sequence[int]) -> torch.Tensor:
    """The values of a node with its dimensions in an order."""
    value, shape = flat.of(node), _shape(node)
    kept = [d for d in order if not _is_one(shape[d])]
    if _same(value.shape, [shape[d] for d in sorted(kept)]):
        sizes, turned = [*value.shape], [sorted(kept).index(d) for d in kept]
    else:
        sizes, turned = blocks_of(shape, order)
    if len(sizes) > MOST:
        return _in_steps(flat, value, sizes, turned)
    value = flat.viewed(value, sizes)
    return value if turned == sorted(turned) else value.permute(turned)


def _in_steps(flat: _Flat, value: torch.Tensor, sizes: Sequence[_Size], order: Sequence[int]) -> torch.Tensor:
    """A permutation of more than four blocks: one after the other goes to its place."""
    now = [*range(len(sizes))]
    for place, block in enumerate(order):
        at = now.index(block)
        front, passed, behind = (
            math.prod(sizes[b] for b in part) for part in (now[:place], now[place:at], now[at + 1 :])
        )
        if at != place:
            value = flat.viewed(value, [front, passed, sizes[block], behind]).permute([0, 2, 1, 3])
        now.insert(place, now.pop(at))
    return value


def _summed(flat: _Flat, node: fx.Node) -> torch.Tensor | None:
    """Einstein's sum of two tensors, as products of a batch of matrices; of one, where it is but turned."""
    equation, parts = operand(node, "equation").replace(" ", ""), operand(node, "tensors")
    inputs, _, result = equation.partition("->")
    names = inputs.split(",")
    if len({*result}) == len(result) and sorted(result) == sorted(inputs):
        return _turned(flat, parts[0], [inputs.index(name) for name in result])
    plain = equation.replace(",", "").replace("->", "").isalpha() and "->" in equation
    if len(names) != 2 or not plain or any(len({*of}) != len(of) for of in (*names, result)):
        return None
    given = [dict(zip(of, _shape(part), strict=True)) for of, part in zip(names, parts, strict=True)]
    both = given[0].keys() & given[1].keys()
    if any(str(given[0][name]) != str(given[1][name]) for name in both) or ({*names[0]} ^ {*names[1]}) - {
        *result
    }:
        return None
    batch, inner = ([n for n in names[0] if n in both and (n in result) is kept] for kept in (True, False))
    left, right = ([n for n in of if n not in both] for of in names)
    factors = ((batch, left, inner), (batch, inner, right))
    sizes = {**given[0], **given[1]}
    first, second = (
        _as_matrices(flat, parts[at], names[at], blocks, sizes) for at, blocks in enumerate(factors)
    )
    return _result(flat, first.matmul(second), [*batch, *left, *right], result, sizes)


def _as_matrices(
    flat: _Flat, part: fx.Node, names: str, blocks: Sequence[Sequence[str]], sizes: Mapping[str, _Size]
) -> torch.Tensor:
    """A factor with its dimensions in the order of `blocks`, each of which is one."""
    value = _turned(flat, part, [names.index(name) for block in blocks for name in block])
    return flat.viewed(value, [math.prod(sizes[name] for name in block) for block in blocks])


def _result(
    flat: _Flat, value: torch.Tensor, names: Sequence[str], result: str, sizes: Mapping[str, _Size]
) -> torch.Tensor:
    """A product, of dimensions `names`, with those in the order of `result`."""
    blocks, turned = blocks_of([sizes[name] for name in names], [names.index(name) for name in result])
    return _in_steps(flat, value, blocks, turned)


_NOT_TAGGED: Final = (  # elementwise, though torch has no tag for it there
    *(aten.where.ScalarOther, aten.where.ScalarSelf, aten.where.Scalar, aten.masked_fill.Tensor),
    *(aten._to_copy.default, aten.expand.default),  # noqa: SLF001 - the operator's name
)
_ALONG: Final = (
    *(aten.slice.Tensor, aten.select.int, aten.softmax.int),
    *(aten.sum.dim_IntList, aten.mean.dim, aten.amax.default, aten.amin.default),
)
_RULES: Final[Mapping[Any, _Rule]] = {
    **dict.fromkeys(_AS_THEY_LIE, _same_values),
    **dict.fromkeys(PERMUTATIONS, _permuted),
    **dict.fromkeys(_BLANKS, _blank),
    **dict.fromkeys((aten.cat.default, aten.stack.default), _joined),
    **dict.fromkeys(_ALONG, _along),
    **dict.fromkeys(_NOT_TAGGED, _elementwise),
    **dict.fromkeys((aten.pad.default, aten.constant_pad_nd.default), _padded),
    aten.matmul.default: _multiplied,
    aten.einsum.default: _summed,
}
