"""Indices counted from the start: no shader, and not the portable ``gather``, counts negative ones from the end.

``x[positions]`` and ``take_along_dim`` may get them. What an embedding or a ``gather`` looks up may not: torch refuses it.
"""

import operator
from collections.abc import Iterator, Sequence
from math import prod
from typing import Any, Final

import torch
from torch import fx
from torch.export import ExportedProgram
from torch.fx.experimental.symbolic_shapes import has_free_unbacked_symbols

from vkfuse.rewrite.constants import Constants
from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.moves import MOVES
from vkfuse.rewrite.operands import is_dynamic, operand, operands
from vkfuse.rewrite.repairs.each import Repairs, replaces
from vkfuse.rewrite.traced import END, wrapped

aten = torch.ops.aten

_SIGNED: Final = (torch.int8, torch.int16, torch.int32, torch.int64)
_MOST_SLICES: Final = 16
_PLACES: Final = frozenset(
    [
        *(aten.argmax.default, aten.argmin.default, aten.arange.default),
        *(aten.topk.default, aten.sort.default, aten.sort.stable),
    ]
)  # their integers are places in a tensor
_MOVED: Final = frozenset([*MOVES, aten.select.int, aten._to_copy.default])  # noqa: SLF001 - the operator's name


def known_masks_as_positions(exported: ExportedProgram) -> Repairs:
    """Look masks that no input reaches up as the places that they let through: a number that need not wait for a run."""
    repaired, repairs = _masks_as_positions(exported)
    return repaired.run_decompositions({}) if repairs else exported, repairs


@replaces(
    *(aten.index.Tensor, aten.nonzero.default, aten.masked_select.default),
    code="known-masks-as-positions",
    detail="how many places a constant mask lets through is known",
)
def _masks_as_positions(editor: GraphEditor, node: fx.Node) -> torch.Tensor | None:
    if not any(map(has_free_unbacked_symbols, node.meta["val"].shape)):
        return None
    of = operands(node)
    x, given = of["x"], of.get("indices", [of.get("mask")])
    if node.target is aten.nonzero.default and x in editor.constants:
        return editor.stored(editor.constants.value(x).nonzero(), f"{node.name}.places")
    whole = [index for index in given if index is not None]
    known = whole and all(index in editor.constants for index in whole)
    if not known or (
        node.target is aten.masked_select.default and x.meta["val"].shape != whole[0].meta["val"].shape
    ):
        return None
    places = [along for index in given for along in _places(editor, index)]
    return aten.index.Tensor(editor.tensor(x), places)  # type: ignore[no-any-return]


def _places(editor: GraphEditor, index: fx.Node | None) -> Sequence[fx.Node | torch.Tensor | None]:
    """What an index is as positions, along each of the dimensions that a mask has."""
    if index is None or index.meta["val"].dtype != torch.bool:
        return [index]
    along = editor.constants.value(index).nonzero(as_tuple=True)
    return [editor.stored(places, f"{index.name}.places") for places in along]


@replaces(
    aten.index.Tensor, code="indices-as-slices", detail="known places along a dimension that is not the first"
)
def known_indices_as_slices(
    editor: GraphEditor, node: fx.Node, x: torch.Tensor, indices: Sequence[fx.Node | None]
) -> torch.Tensor | None:
    """Replace ``x[:, [0, 2, 4, 7]]`` by the slices that the places are, side by side.

    Places along several dimensions in a row, the lower triangle of a matrix for one, are some along all of them.
    """
    given = {axis: index for axis, index in enumerate(indices) if index is not None}
    axis, sizes = min(given), [*x.shape[min(given) : max(given) + 1]]
    known = all(index in editor.constants for index in given.values())
    if axis == 0 or len(sizes) != len(given) or not known or node in editor.constants:
        return None
    places = [editor.constants.value(index) for index in given.values()]
    if not all(isinstance(size, int) for size in sizes):
        last = len(given) == 1 and places[0].tolist() == [-1]
        return aten.slice.Tensor(x, axis, -1, END) if last else None
    if len(given) > 1:
        before, behind = editor.sizes(x)[:axis], editor.sizes(x)[axis + len(given) :]
        x = x.reshape([*before, prod(sizes), *behind])
    return _side_by_side(x, axis, [*_runs(_joined(places, sizes), prod(sizes))])


def _joined(places: Sequence[torch.Tensor], sizes: Sequence[int]) -> torch.Tensor:
    """Places [n] along dimensions of some sizes as places in all of them; without a dimension where they are masks."""
    joined = torch.zeros((), dtype=torch.long)
    if any(place.dtype not in _SIGNED for place in places):
        return joined
    for place, size in zip(places, sizes, strict=True):
        joined = joined * size + place % size
    return joined


def _side_by_side(x: torch.Tensor, axis: int, runs: Sequence[range]) -> torch.Tensor | None:
    """The slices of `x` that some runs are; None for none, and for very many."""
    if not 0 < len(runs) <= _MOST_SLICES:
        return None
    parts = [aten.slice.Tensor(x, axis, run.start, run.stop, run.step) for run in runs]
    return parts[0] if len(parts) == 1 else torch.cat(parts, axis)


def _runs(places: torch.Tensor, size: int) -> Iterator[range]:
    """Places of a row, each in one of the ranges that they run through; nothing where they are no row of places."""
    if places.ndim != 1 or places.numel() > size:
        return
    rest = [int(place) for place in places]
    while rest:
        step = max(rest[1] - rest[0], 1) if len(rest) > 1 else 1
        run = range(rest[0], rest[0] + step * len(rest), step)
        length = next(
            (at for at, (one, two) in enumerate(zip(rest, run, strict=True)) if one != two), len(rest)
        )
        yield range(rest[0], run[length - 1] + 1, step)
        rest = rest[length:]


@replaces(
    *(aten.index.Tensor, aten.index_put.default),
    code="indices-from-the-start",
    detail="the runtime counts no index from the end",
)
def indices_from_the_start(
    editor: GraphEditor, node: fx.Node, x: fx.Node, indices: Sequence[fx.Node | None]
) -> torch.Tensor | None:
    """Wrap what may be negative in an index along one dimension, of what is read or of a cache that is written."""
    given = [(axis, index) for axis, index in enumerate(indices) if index is not None]
    if len(given) != 1 or node in editor.constants or not _may_be_negative(given[0][1], editor.constants):
        return None
    ((axis, index),) = given
    positive = wrapped(editor.tensor(index), editor.sizes(x)[axis])
    return editor.again(node, indices=[None] * axis + [positive])


@replaces(
    aten.index.Tensor, code="places-selected", detail="the runtime of 1.5.0 indexes the first dimension alone"
)
def places_selected(
    editor: GraphEditor, node: fx.Node, x: torch.Tensor, indices: Sequence[fx.Node | None]
) -> torch.Tensor | None:
    """Select computed places along one dimension that is not the first, of static sizes."""
    *before, index = indices
    if index is None or not before or any(of is not None for of in before) or node in editor.constants:
        return None
    places = editor.tensor(index)
    plain = places.ndim == 1 and places.dtype in _SIGNED and x.is_floating_point()
    return (
        x.index_select(len(before), places) if plain and not is_dynamic(node) and not is_dynamic(x) else None
    )


@replaces(
    aten.index.Tensor, code="pairs-of-places", detail="the runtime of 1.5.0 indexes the first dimension alone"
)
def pairs_of_places(
    editor: GraphEditor, node: fx.Node, x: torch.Tensor, indices: Sequence[fx.Node | None]
) -> torch.Tensor | None:
    """Take ``x[rows, places]``, as a text's end is, from all rows of a tensor of floats one behind the other."""
    given = [of for of in indices if of is not None and of.meta["val"].ndim == 1]
    if not len(given) == len(indices) == 2 or node in editor.constants or not x.is_floating_point():
        return None
    if any(of.meta["val"].dtype not in _SIGNED for of in given):
        return None
    sizes, negative = editor.sizes(x), [_may_be_negative(of, editor.constants) for of in given]
    known = [editor.constants.value(of) for of in given if of in editor.constants]
    if len(known) == len(given) and not any(negative) and isinstance(sizes[1], int):
        flat = editor.stored(known[0] * sizes[1] + known[1], "places")
    else:
        places = [
            wrapped(editor.tensor(of), size) if below else editor.tensor(of)
            for of, size, below in zip(given, sizes, negative, strict=False)
        ]
        flat = aten.mul.Tensor(places[0], sizes[1]) + places[1]
    return editor.again(node, x=x.reshape([-1, *sizes[2:]]), indices=[flat])


def _may_be_negative(index: fx.Node, constants: Constants) -> bool:
    value = constants.value(index) if index in constants else index.meta["val"]
    if value.dtype not in _SIGNED:
        return value.is_floating_point()  # made whole
    if index in constants:
        return bool((value < 0).any())
    if index.target in _MOVED:
        return _may_be_negative(operand(index, "x"), constants)
    if index.target == aten.remainder.Scalar:
        return operand(index, "other") < 0  # type: ignore[no-any-return]
    if index.target == aten.clamp.default:
        least = operand(index, "min")
        return least is None or least < 0
    made, which = index.args if index.target is operator.getitem else (index, 1)
    return not (which == 1 and isinstance(made, fx.Node) and made.target in _PLACES)


@replaces(
    aten.take_along_dim.default,
    code="indices-from-the-start",
    detail="the runtime counts no index from the end",
)
def taken_by_gathering(
    editor: GraphEditor, node: fx.Node, x: torch.Tensor, indices: torch.Tensor, dim: int | None
) -> torch.Tensor | None:
    """Take along a dimension by gathering, source and indices expanded to each other elsewhere, as torch does it."""
    if dim is None or node in editor.constants:
        return None
    axis, sizes, wanted = dim % x.ndim, editor.sizes(x), editor.sizes(indices)
    common = [there if here == 1 else here for here, there in zip(sizes, wanted, strict=True)]
    source, index = (
        _expanded(part, of, [*common[:axis], of[axis], *common[axis + 1 :]])
        for part, of in ((x, sizes), (wrapped(indices, sizes[axis]), wanted))
    )
    return source.gather(axis, index)


def _expanded(part: torch.Tensor, sizes: list[Any], wanted: list[Any]) -> torch.Tensor:
    return part if sizes == wanted else part.expand(wanted)
