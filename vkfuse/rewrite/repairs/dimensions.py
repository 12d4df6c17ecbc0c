"""Operators of more than four dimensions, which Vulkan tensors have not, in as many as they need.

Dimensions of one say nothing, and neighbours that an operator treats alike are one: an elementwise operator has as many as
its operands broadcast differently, one along a dimension has what is in front of it, it, and what is behind. Mamba 2's
products of chunks, ``einsum("bclhn,bcshn->bclsh", c, b)``, are those of a batch of matrices. Values stay where they lie.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import fx
from torch.export import ExportedProgram

from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.moves import COPIES, PERMUTATIONS, VIEWS, blocks_of, order_of
from vkfuse.rewrite.operands import is_dynamic, operand
from vkfuse.rewrite.repairs.each import done
from vkfuse.rewrite.repairs.notes import Repairs
from vkfuse.rewrite.traced import untraced

aten = torch.ops.aten

_MOST: Final = 4
_AS_THEY_LIE: Final = frozenset({*VIEWS, *COPIES, aten.unsqueeze.default, aten.squeeze.dim})
_BLANKS: Final[Mapping[Any, float]] = {aten.zeros_like.default: 0.0, aten.ones_like.default: 1.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Flat:
    """Tensors of the program as others of at most four dimensions that have the same values in the same order."""

    editor: GraphEditor
    known: dict[fx.Node, torch.Tensor] = field(default_factory=dict)

    def laid(self, node: fx.Node, sizes: Sequence[int]) -> torch.Tensor:
        """The values of a node, in `sizes`."""
        value = self.known.get(node, None)
        value = self.editor.tensor(node) if value is None else value
        return value if [*value.shape] == [*sizes] else value.reshape([*sizes])


def operators_in_four_dimensions(exported: ExportedProgram) -> Repairs:
    """Replace operators of static sizes that read or make tensors of more than four dimensions."""
    editor, found = GraphEditor(exported), []
    flat = _Flat(editor=editor)
    for node in exported.graph.nodes:
        rule = _rule(node) if _is_large(node) and node not in editor.constants else None
        if rule is None:
            continue
        with editor.before(node):
            made = rule(flat, node)
            if made is None:
                continue
            flat.known[node] = made
            if node.target not in _AS_THEY_LIE or _rank(node) <= _MOST:
                editor.replace(node, flat.laid(node, _shape(node)))
                found.append(node.name)
    detail = "dimensions that stay side by side as one"
    return done(editor, found, code="operators-in-four-dimensions", detail=detail)


_Rule = Callable[[_Flat, fx.Node], torch.Tensor | None]


def _is_large(node: fx.Node) -> bool:
    """Whether a call reads or makes a tensor of more than four dimensions, all of static sizes."""
    tensors = [of for of in (node, *node.all_input_nodes) if isinstance(of.meta.get("val"), torch.Tensor)]
    static = len(tensors) == len(node.all_input_nodes) + 1 and not any(map(is_dynamic, tensors))
    return node.op == "call_function" and static and any(_rank(of) > _MOST for of in tensors)


def _rule(node: fx.Node) -> _Rule | None:
    if node.target in _RULES:
        return _RULES[node.target]
    pointwise = isinstance(node.target, torch._ops.OpOverload) and torch.Tag.pointwise in node.target.tags  # noqa: SLF001
    return _elementwise if pointwise else None


def _shape(node: fx.Node) -> list[int]:
    return [*node.meta["val"].shape]


def _rank(node: fx.Node) -> int:
    return len(_shape(node))


def _same_values(flat: _Flat, node: fx.Node) -> torch.Tensor | None:
    """A view or a copy."""
    source = operand(node, "x")
    small = _rank(source) <= _MOST or source in flat.known
    return flat.known.get(source, flat.editor.tensor(source)) if small else None


def _elementwise(flat: _Flat, node: fx.Node) -> torch.Tensor | None:
    """Elements each by itself, or an expansion: dimensions that the same operands broadcast, as one."""
    shape, parts = _shape(node), node.all_input_nodes
    padded = {part: [1] * (len(shape) - _rank(part)) + _shape(part) for part in parts}
    broadcast = [tuple(size[d] == 1 for size in padded.values()) for d in range(len(shape))]
    runs = _runs([d for d in range(len(shape)) if shape[d] != 1], broadcast)
    if len(runs) > _MOST:
        return None
    laid = {
        part: flat.laid(part, [math.prod(size[d] for d in run) for run in runs])
        for part, size in padded.items()
        if _rank(part)  # a number has no say in the type of the result
    }
    if node.target == aten.expand.default:
        return laid[parts[0]].expand([math.prod(shape[d] for d in run) for run in runs])
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda of: untraced(laid.get(of, of)))
    return flat.editor.tensor(flat.editor.call(node.target, *args, **kwargs))


def _runs(dims: Iterable[int], kinds: Sequence[Any]) -> list[list[int]]:
    """Dimensions, as many of those next to each other that are of one kind together as make them four."""
    runs = [[d] for d in dims]
    while len(runs) > _MOST:
        at = next((i for i in range(1, len(runs)) if kinds[runs[i - 1][-1]] == kinds[runs[i][0]]), None)
        if at is None:
            break
        runs[at - 1 : at + 1] = [runs[at - 1] + runs[at]]
    return runs


def _around(shape: Sequence[int], dim: int) -> list[int]:
    """A shape as what is in front of a dimension, it, and what is behind it."""
    return [math.prod(shape[:dim]), shape[dim], math.prod(shape[dim + 1 :])]


def _along(flat: _Flat, node: fx.Node) -> torch.Tensor | None:
    """An operator along one dimension."""
    source, dim = operand(node, "x"), operand(node, "dim")
    several = isinstance(dim, (list, tuple))
    if dim is None or (several and len(dim) != 1):
        return None
    at = (dim[0] if several else dim) % _rank(source)
    return flat.editor.again(
        node, x=flat.laid(source, _around(_shape(source), at)), dim=[1] if several else 1
    )


def _joined(flat: _Flat, node: fx.Node) -> torch.Tensor:
    """Tensors one behind the other along a dimension, or along a new one."""
    dim, parts = operand(node, "dim") % _rank(node), operand(node, "tensors")
    front, _, behind = _around(_shape(node), dim)
    within = [1 if node.target == aten.stack.default else _shape(part)[dim] for part in parts]
    laid = [flat.laid(part, [front, size, behind]) for part, size in zip(parts, within, strict=True)]
    return torch.cat(laid, 1)


def _blank(flat: _Flat, node: fx.Node) -> torch.Tensor:
    number = torch.full([math.prod(_shape(node))], _BLANKS[node.target], dtype=node.meta["val"].dtype)
    return flat.editor.stored(number, "blank")


def _permuted(flat: _Flat, node: fx.Node) -> torch.Tensor:
    source = operand(node, "x")
    return _turned(flat, source, order_of(node))


def _turned(flat: _Flat, node: fx.Node, order: Sequence[int]) -> torch.Tensor:
    """The values of a node with its dimensions in an order."""
    sizes, turned = blocks_of(_shape(node), order)
    if len(sizes) > _MOST:
        return _in_steps(flat.laid(node, [math.prod(sizes)]), sizes, turned)
    value = flat.laid(node, sizes)
    return value if turned == sorted(turned) else value.permute(turned)


def _in_steps(value: torch.Tensor, sizes: Sequence[int], order: Sequence[int]) -> torch.Tensor:
    """A permutation of more than four blocks: one after the other goes to its place."""
    now = [*range(len(sizes))]
    for place, block in enumerate(order):
        at = now.index(block)
        front, passed, behind = (
            math.prod(sizes[b] for b in part) for part in (now[:place], now[place:at], now[at + 1 :])
        )
        if at != place:
            value = value.reshape([front, passed, sizes[block], behind]).permute([0, 2, 1, 3])
        now.insert(place, now.pop(at))
    return value


def _summed(flat: _Flat, node: fx.Node) -> torch.Tensor | None:
    """Einstein's sum of two tensors, as products of a batch of matrices."""
    equation, parts = operand(node, "equation").replace(" ", ""), operand(node, "tensors")
    inputs, _, result = equation.partition("->")
    names = inputs.split(",")
    plain = equation.replace(",", "").replace("->", "").isalpha() and "->" in equation
    if len(names) != 2 or not plain or any(len({*of}) != len(of) for of in (*names, result)):
        return None
    given = [dict(zip(of, _shape(part), strict=True)) for of, part in zip(names, parts, strict=True)]
    both = given[0].keys() & given[1].keys()
    if any(given[0][name] != given[1][name] for name in both) or ({*names[0]} ^ {*names[1]}) - {*result}:
        return None
    batch, inner = ([n for n in names[0] if n in both and (n in result) is kept] for kept in (True, False))
    left, right = ([n for n in of if n not in both] for of in names)
    factors = ((batch, left, inner), (batch, inner, right))
    sizes = {**given[0], **given[1]}
    first, second = (
        _as_matrices(flat, parts[at], names[at], blocks, sizes) for at, blocks in enumerate(factors)
    )
    return _result(first.matmul(second), [*batch, *left, *right], result, sizes)


def _as_matrices(
    flat: _Flat, part: fx.Node, names: str, blocks: Sequence[Sequence[str]], sizes: Mapping[str, int]
) -> torch.Tensor:
    """A factor with its dimensions in the order of `blocks`, each of which is one."""
    value = _turned(flat, part, [names.index(name) for block in blocks for name in block])
    return value.reshape([math.prod(sizes[name] for name in block) for block in blocks])


def _result(value: torch.Tensor, names: Sequence[str], result: str, sizes: Mapping[str, int]) -> torch.Tensor:
    """A product, of dimensions `names`, with those in the order of `result`."""
    blocks, turned = blocks_of([sizes[name] for name in names], [names.index(name) for name in result])
    return _in_steps(value, blocks, turned)


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
    **dict.fromkeys((aten._to_copy.default, aten.expand.default), _elementwise),  # noqa: SLF001 - the operator's name
    aten.einsum.default: _summed,
}
