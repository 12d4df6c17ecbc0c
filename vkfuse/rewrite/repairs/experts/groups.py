"""Choices that end in a sum of scores or in a mask: of groups of experts, out of which the experts are chosen then.

GLM-4-MoE and DeepSeek score a group by the sum of its two best experts, ``scores.topk(2).values.sum(-1)``, choose groups,
``mask.scatter_(1, groups, 1)``, and hide the experts of all others from the choice of experts. Llama 4 has the chosen
scores among infinities, behind a sigmoid.
"""

import math
import operator
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

import torch
from torch import fx
from torch.export import ExportedProgram

from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.operands import operand, operands
from vkfuse.rewrite.repairs.each import Repairs, done
from vkfuse.rewrite.repairs.experts.routing import MOST, chosen_of, finite, is_choice

aten = torch.ops.aten

BLANKS: Final = (aten.zeros_like.default, aten.zeros.default, aten.new_zeros.default)
_FULL: Final = (aten.full_like.default, aten.full.default)
_COPY: Final = aten._to_copy.default  # noqa: SLF001 - the operator's name
_NOT: Final = (aten.logical_not.default, aten.bitwise_not.default)
_SQUASHING: Final = (aten.sigmoid.default, aten.softmax.int)
_MOVES: Final = frozenset(
    {
        *(aten.unsqueeze.default, aten.expand.default, aten.view.default, aten.reshape.default),
        *(aten.clone.default, aten.alias.default, aten.squeeze.dim),
        aten._unsafe_view.default,  # noqa: SLF001 - the operator's name
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Mask:
    """A tensor of the program that is true, or 1, where `ones` is 1, and false where it is 0; or the opposite."""

    ones: torch.Tensor
    opposite: bool = False


def choices_as_arithmetic(exported: ExportedProgram) -> Repairs:
    """Replace choices by topk that end in sums and masks, and what hides scores by such masks."""
    editor, found, masks = GraphEditor(exported), list[str](), dict[Any, _Mask]()
    for node in exported.graph.nodes:
        if node.target == aten.topk.default and is_choice(node) and all(map(_ends, _results(node))):
            found.extend(_chosen(editor, node, masks))
        elif node.target == aten.masked_fill.Scalar and operand(node, "mask") in masks and _may_hide(node):
            with editor.before(node):
                editor.replace(node, _hidden(editor, node, masks[operand(node, "mask")]))
            found.append(node.name)
        elif node.all_input_nodes and node.args[0] in masks:
            mask = _moved(editor, node, masks[node.args[0]])
            masks.update({} if mask is None else {node: mask})
    return done(editor, found, code="choices-as-arithmetic", detail="no runtime has topk")


def _results(topk: fx.Node) -> Iterator[fx.Node]:
    """What is made of the chosen scores, and of their places; another user of `topk` itself."""
    for user in topk.users:
        yield from user.users if user.target is operator.getitem else [user]


def _ends(node: fx.Node) -> bool:
    """Whether `node` is a sum of chosen scores, a mask of their places, or has them among numbers that stay."""
    if node.target == aten.sum.dim_IntList:
        given = operands(node)
        return _of_choice(given["x"], 0) and _is_last(node, given["dim"]) and given["dtype"] is None
    if node.target not in {aten.scatter.value, aten.scatter.src}:
        return False
    given, value = operands(node), node.meta["val"]
    number, index = _filled(given["x"]), given["index"]
    if number is None or not value.is_floating_point() or not _is_last(node, given["dim"]):
        return False
    if not _of_choice(index, 1) or str(value.shape) != str(index.args[0].args[0].meta["val"].shape):
        return False
    if node.target == aten.scatter.value:
        return (number, given["value"]) == (0, 1)
    return _of_choice(given["src"], 0) and (
        math.isfinite(number) or (number == -math.inf and _vanishes(node))
    )


def _of_choice(node: Any, which: int) -> bool:
    """Whether `node` is what topk chose (0), or its places (1)."""
    return isinstance(node, fx.Node) and node.target is operator.getitem and bool(node.args[1] == which)


def _is_last(node: fx.Node, dims: Any) -> bool:
    """Whether a dimension, or a list of one, is the last."""
    rank = node.args[0].meta["val"].ndim  # type: ignore[union-attr]
    return dims in (-1, rank - 1, [-1], [rank - 1])


def _filled(base: fx.Node) -> float | None:
    """The number that a tensor has everywhere, None where that is not known."""
    if base.target in BLANKS:
        return 0.0
    number = operand(base, "fill_value") if base.target in _FULL else None
    return float(number) if isinstance(number, (int, float)) else None


def _vanishes(node: fx.Node) -> bool:
    """Whether all that reads minus infinities in `node` makes zeros of them, as of a number far below all scores."""
    return all(user.target in _SQUASHING or (user.target == _COPY and _vanishes(user)) for user in node.users)


def _chosen(editor: GraphEditor, topk: fx.Node, masks: dict[Any, _Mask]) -> Iterator[str]:
    """Replace what comes of a choice by arithmetic on all scores; yields what is replaced."""
    with editor.before(topk):
        every = finite(editor.tensor(operand(topk, "x")))
        chosen = chosen_of(editor, every, operand(topk, "k"))
    for node in _results(topk):
        given = operands(node)
        with editor.before(node):
            if node.target == aten.sum.dim_IntList:
                new = (every * chosen).sum(given["dim"], given["keepdim"])
            elif node.target == aten.scatter.src:
                new = _filled_up(every * chosen, chosen, _filled(given["x"]) or 0.0)
            else:
                new = chosen.to(node.meta["val"].dtype)
                masks[node] = _Mask(ones=new)
        editor.replace(node, new)
        yield node.name


def _filled_up(shown: torch.Tensor, ones: torch.Tensor, fill: float) -> torch.Tensor:
    """`shown`, which is zero where `ones` is not 1, with a number there."""
    if fill == 0:
        return shown
    return shown + (ones - 1.0) * (MOST if fill == -math.inf else -fill)


def _moved(editor: GraphEditor, node: fx.Node, mask: _Mask) -> _Mask | None:
    """What `node` makes of a mask, None where that is no mask."""
    truth = node.meta["val"].dtype == torch.bool
    if node.target in _MOVES:
        with editor.before(node):
            moved = editor.call(node.target, mask.ones, *node.args[1:], **node.kwargs)
        return replace(mask, ones=editor.tensor(moved))
    if node.target in _NOT and truth:
        return replace(mask, opposite=not mask.opposite)
    return mask if node.target == _COPY and truth else None


def _may_hide(node: fx.Node) -> bool:
    """Whether zero is filled in, or minus infinity for just a choice, to which a number below all scores is the same."""
    fill, value = operand(node, "value"), node.meta["val"]
    unseen = all(
        user.target == aten.topk.default and is_choice(user) and all(n.args[1] == 1 for n in user.users)
        for user in node.users
    )
    return bool(value.is_floating_point() and (fill == 0 or (fill == -math.inf and unseen)))


def _hidden(editor: GraphEditor, node: fx.Node, mask: _Mask) -> torch.Tensor:
    """Scores times 1 where they are left, else zero, or far below all scores."""
    scores = finite(editor.tensor(operand(node, "x")))
    ones = mask.ones.to(scores.dtype)
    left = ones if mask.opposite else (ones - 1.0) * -1.0
    return _filled_up(scores * left, left, operand(node, "value"))
