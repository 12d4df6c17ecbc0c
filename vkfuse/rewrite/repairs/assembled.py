"""Tensors that assignments to slices put together, as concatenations: no runtime has ``slice_scatter``.

``q = x.new_empty(...); q[..., :n] = plain; q[..., n:] = turned`` is how DeepSeek's attention joins its columns, and
``out[..., ::2] = even; out[..., 1::2] = odd`` how an interleaved rotary embedding ends.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.operands import is_dynamic, operand, operands
from vkfuse.rewrite.repairs.each import replaces

aten = torch.ops.aten

_ZEROS: Mapping[Any, Any] = {
    aten.empty.memory_format: aten.zeros.default,
    aten.empty_like.default: aten.zeros_like.default,
    aten.new_empty.default: aten.new_zeros.default,
}


@replaces(
    aten.select_scatter.default,
    code="assignments-concatenated",
    detail="the runtime writes no slices of a tensor",
)
def rows_as_slices(
    editor: GraphEditor, node: fx.Node, x: torch.Tensor, src: torch.Tensor, dim: int, index: Any
) -> torch.Tensor | None:
    """Replace each write of floats to one known place of a dimension of known size by that of a slice."""
    dim, known = dim % x.ndim, isinstance(x.shape[dim], int) and isinstance(index, int)
    if not known or not x.is_floating_point() or node in editor.constants:
        return None
    start = index % x.shape[dim]
    return aten.slice_scatter.default(x, src.unsqueeze(dim), dim, start, start + 1)  # type: ignore[no-any-return]


_NEW: Mapping[Any, int | str] = {
    aten.new_zeros.default: 0,
    aten.new_ones.default: 1,
    aten.new_full.default: "fill_value",
}


@replaces(*_NEW, code="empties-as-zeros", detail="no input reaches them")
def blanks_by_sizes(editor: GraphEditor, node: fx.Node) -> fx.Node | None:
    """Fill by sizes alone what is made into something by constants alone, as ``x.new_zeros(rows, columns)`` is a mask."""
    inputs = (user.all_input_nodes for user in node.users if user.op == "call_function")
    if is_dynamic(node) or not any(
        all(of is node or of in editor.constants for of in each) for each in inputs
    ):
        return None
    fill, value = _NEW[node.target], node.meta["val"]
    number = operand(node, fill) if isinstance(fill, str) else fill
    return editor.call(aten.full.default, [*value.shape], number, dtype=value.dtype)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Written:
    """`source` written over `base` at ``range(start, end, step)`` of dimension `dim`, which has `size` places."""

    base: fx.Node
    source: fx.Node
    dim: int
    start: int
    end: int
    step: int
    size: int


@replaces(
    aten.slice_scatter.default,
    code="assignments-concatenated",
    detail="the runtime writes no slices of a tensor",
)
def assignments_as_concatenation(editor: GraphEditor, node: fx.Node) -> torch.Tensor | None:
    """Replace each write of floats to a known slice of a dimension of known size."""
    written = _written(node)
    if written is None:
        return None
    if written.step == 1:
        whole = _concatenated(editor, written)
        return None if whole is None else _laid_out(whole, node.meta["val"])
    under = _written(written.base)
    if under is None or not _alternate(written, under):
        return None
    first, second = sorted((written, under), key=lambda each: each.start)
    pairs = torch.stack([editor.tensor(of.source) for of in (first, second)], written.dim + 1)
    return _laid_out(pairs.reshape(editor.sizes(node)), node.meta["val"])


def _laid_out(whole: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """`whole` in the order of dimensions that `like` has in memory, which views of it rely on."""
    if like.is_contiguous():
        return whole
    order = [*like.dim_order()]
    stored = whole.permute(order).clone(memory_format=torch.contiguous_format)
    return stored.permute([order.index(d) for d in range(like.ndim)])


def _written(node: fx.Node) -> _Written | None:
    if node.target != aten.slice_scatter.default:
        return None
    given, value = operands(node), node.meta["val"]
    dim, bounds = given["dim"] % value.ndim, [given[name] for name in ("start", "end", "step")]
    size = value.shape[dim]
    known = isinstance(size, int) and not any(isinstance(bound, fx.Node) for bound in bounds)
    if not known or not value.is_floating_point():
        return None
    start, end, step = slice(*bounds).indices(size)
    return _Written(base=given["x"], source=given["src"], dim=dim, start=start, end=end, step=step, size=size)


def _alternate(one: _Written, other: _Written) -> bool:
    """Whether two writes are every second place, and all others."""
    return (
        (one.dim, one.step, other.step) == (other.dim, 2, 2)
        and one.size % 2 == 0
        and {one.start, other.start} == {0, 1}
        and min(one.end, other.end) >= one.size - 1
        and max(one.end, other.end) == one.size
    )


def _concatenated(editor: GraphEditor, written: _Written) -> torch.Tensor | None:
    """The parts side by side; None where one was never written."""
    parts = [*_parts(written, 0, written.size)]
    if any(of.target in _ZEROS for of, *_ in parts):
        return None
    made = [
        editor.tensor(of) if whole else editor.tensor(editor.call(aten.slice.Tensor, of, written.dim, *where))
        for of, *where, whole in parts
    ]
    return made[0] if len(made) == 1 else torch.cat(made, written.dim)


def _parts(written: _Written, start: int, end: int) -> Iterator[tuple[fx.Node, int, int, bool]]:
    """What is at `start` to `end`: of which tensor, from where to where in it, and whether that is all of it."""
    yield from _beneath(written, start, min(end, written.start))
    low, high = max(start, written.start), min(end, written.end)
    if low < high:
        whole = (low, high) == (written.start, written.end)
        yield written.source, low - written.start, high - written.start, whole
    yield from _beneath(written, max(start, written.end), end)


def _beneath(written: _Written, start: int, end: int) -> Iterator[tuple[fx.Node, int, int, bool]]:
    if start >= end:
        return
    under = _written(written.base) if len(written.base.users) == 1 else None
    if under is not None and (under.dim, under.step) == (written.dim, 1):
        yield from _parts(under, start, end)
    else:
        yield written.base, start, end, (start, end) == (0, written.size)


@replaces(*_ZEROS, code="empties-as-zeros", detail="an empty tensor has one size for all lengths")
def empties_as_zeros(editor: GraphEditor, node: fx.Node) -> fx.Node | None:
    """Fill what is left empty and written to later: ExecuTorch's empty tensors do not grow, and none is like another."""
    like = node.target == aten.empty_like.default  # empty_permuted to torch, of which no library has a kernel
    if not like and all(isinstance(size, int) for size in node.meta["val"].shape):
        return None
    known = {argument.name for argument in _ZEROS[node.target]._schema.arguments}  # noqa: SLF001 - torch's only way
    return editor.call(
        _ZEROS[node.target], *node.args, **{name: of for name, of in node.kwargs.items() if name in known}
    )
