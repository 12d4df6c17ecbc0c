"""Truths about floats, and what is chosen by them, in the form that the delegate has: where they are made, they stay."""

from typing import Any, Final

import torch
from torch import fx

from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.moves import MOVES, behind
from vkfuse.rewrite.operands import operand, operands
from vkfuse.rewrite.repairs.each import replaces

aten = torch.ops.aten

_ASKING: Final = (aten.any.dim, aten.any.dims)
_MADE_OF_TRUTHS: Final = frozenset(
    [
        *_ASKING,
        *(aten.bitwise_and.Tensor, aten.bitwise_or.Tensor, aten.bitwise_not.default),
        *(aten.__and__.Tensor, aten.__or__.Tensor),
        *(aten.logical_and.default, aten.logical_or.default, aten.logical_not.default, *MOVES),
    ]
)
_COMPARISONS: Final = frozenset(
    operator
    for name in ("lt", "le", "gt", "ge", "eq", "ne")
    for operator in (getattr(aten, name).Scalar, getattr(aten, name).Tensor)
)


@replaces(aten.logical_not.default, code="truths-in-the-delegate", detail="the runtime negates bits")
def negations_of_bits(x: torch.Tensor) -> torch.Tensor | None:
    """Negate bools by their bits."""
    return x.bitwise_not() if x.dtype is torch.bool else None


@replaces(
    *(aten.mul.Tensor, aten.logical_xor.default),
    code="truths-in-the-delegate",
    detail="the runtime has and, or and not of bits",
)
def products_of_bits(editor: GraphEditor, node: fx.Node, x: fx.Node, other: fx.Node) -> torch.Tensor | None:
    """Combine two truths, one about computed floats, by their bits."""
    if not all(_is_truth(of) for of in (x, other)) or not any(_is_of_floats(of, editor) for of in (x, other)):
        return None
    one, two = editor.tensor(x), editor.tensor(other)
    both = one.bitwise_and(two)
    return both if node.target == aten.mul.Tensor else one.bitwise_or(two).bitwise_and(both.bitwise_not())


def _is_truth(of: object) -> bool:
    return isinstance(of, fx.Node) and getattr(of.meta["val"], "dtype", None) is torch.bool


_EQUAL: Final = (aten.eq.Scalar, aten.eq.Tensor)


@replaces(
    *(*_EQUAL, aten.ne.Scalar, aten.ne.Tensor),
    code="truths-in-the-delegate",
    detail="the runtime takes what is near for equal",
)
def equalities_as_bounds(
    editor: GraphEditor, node: fx.Node, x: fx.Node, other: fx.Node | float
) -> torch.Tensor | None:
    """Compare computed floats with a number, or with other floats to choose floats by it, from both sides.

    Places are chosen on the CPU, and what they are compared by is there.
    """
    if not all(_is_floats(of) for of in (x, other)) or not _is_computed(x, editor):
        return None
    if isinstance(other, fx.Node) and not _makes_floats(node):
        return None
    value, with_ = editor.tensor(x), editor.tensor(other) if isinstance(other, fx.Node) else other
    equal = (value >= with_).bitwise_and(value <= with_)
    return equal if node.target in _EQUAL else equal.bitwise_not()


def _makes_floats(node: fx.Node) -> bool:
    """Whether only floats come of a node, and of truths that are made of it."""
    values = [(user, user.meta.get("val")) for user in node.users]
    return all(
        isinstance(value, torch.Tensor)
        and (value.is_floating_point() or (value.dtype is torch.bool and _makes_floats(user)))
        for user, value in values
    )


def _is_floats(of: Any) -> bool:
    """Whether an operand is a tensor of floats, or a number that a program has."""
    if not isinstance(of, fx.Node):
        return True
    value = of.meta["val"]
    return isinstance(value, torch.Tensor) and value.is_floating_point() and value.ndim > 0


@replaces(
    *_ASKING,
    code="truths-in-the-delegate",
    detail="the runtime has extremes, and no such reductions",
)
def truths_of_any(editor: GraphEditor, x: fx.Node, dim: Any, keepdim: bool) -> torch.Tensor | None:
    """Compare the largest of ones and zeros along dimensions with zero."""
    if dim is None or not _is_of_floats(x, editor):
        return None
    one, zero = (_number(editor, value, torch.float32) for value in (1.0, 0.0))
    dims = [*dim] if isinstance(dim, (list, tuple)) else [dim]
    return torch.amax(torch.where(editor.tensor(x), one, zero), dims, keepdim) > 0


_WHOLE: Final = (aten.floor.default, aten.ceil.default, aten.trunc.default)


@replaces(*_WHOLE, code="truths-in-the-delegate", detail="the runtime rounds, and compares")
def whole_numbers_as_choices(editor: GraphEditor, node: fx.Node, x: fx.Node) -> torch.Tensor | None:
    """Round computed floats to the nearest whole numbers, and go back a step where those are on the other side."""
    if not _is_floats(x) or not _is_computed(x, editor) or not _makes_floats(node):
        return None
    value, one = editor.tensor(x), _number(editor, 1.0, x.meta["val"].dtype)
    near = value.round()
    below = torch.where(near > value, near - one, near)
    if node.target == aten.floor.default:
        return below
    above = torch.where(near < value, near + one, near)
    return above if node.target == aten.ceil.default else torch.where(value < 0, above, below)


@replaces(
    *(aten.isnan.default, aten.isinf.default),
    code="truths-in-the-delegate",
    detail="the runtime compares, and asks nothing else",
)
def kinds_as_comparisons(editor: GraphEditor, node: fx.Node, x: fx.Node) -> torch.Tensor | None:
    """Compare computed floats with themselves, of which what is no number is not as large, or with infinity."""
    if not _is_floats(x) or not _is_computed(x, editor):
        return None
    value = editor.tensor(x)
    return value.ge(value).bitwise_not() if node.target == aten.isnan.default else value.abs() >= torch.inf


@replaces(aten.sign.default, code="truths-in-the-delegate", detail="the runtime compares, and has no sign")
def signs_as_choices(editor: GraphEditor, x: fx.Node) -> torch.Tensor | None:
    """Choose between one, minus one and zero, also for what is no number, by comparisons of computed floats."""
    if not _is_floats(x) or not _is_computed(x, editor):
        return None
    one, less, zero = (_number(editor, value, x.meta["val"].dtype) for value in (1.0, -1.0, 0.0))
    value = editor.tensor(x)
    return torch.where(value > 0, one, torch.where(value < 0, less, zero))


@replaces(
    *(aten._to_copy.default, aten.mul.Tensor, aten.add.Tensor, aten.sub.Tensor),  # noqa: SLF001 - the operator's name
    code="truths-in-the-delegate",
    detail="the runtime chooses between numbers, and converts no bools",
)
def truths_as_choices(editor: GraphEditor, node: fx.Node) -> torch.Tensor | None:
    """Compute with one and zero, chosen between by what is true of floats, where a bool is converted or promoted."""
    dtype = node.meta["val"].dtype
    truths = {
        k: of for k, of in operands(node).items() if isinstance(of, fx.Node) and _is_of_floats(of, editor)
    }
    if not dtype.is_floating_point or not truths:
        return None
    one, zero = (_number(editor, value, dtype) for value in (1.0, 0.0))
    chosen = {name: torch.where(editor.tensor(of), one, zero) for name, of in truths.items()}
    return chosen["x"] if node.target == _CONVERSION else editor.again(node, **chosen)


_CONVERSION: Final = aten._to_copy.default  # noqa: SLF001 - the operator's name


def _number(editor: GraphEditor, value: float, dtype: torch.dtype) -> torch.Tensor:
    return editor.stored(torch.tensor(value, dtype=dtype), "number")


@replaces(
    *(aten.where.ScalarSelf, aten.where.ScalarOther, aten.where.Scalar, aten.masked_fill.Scalar),
    code="numbers-stored",
    detail="numbers between which an operator chooses would be made on the CPU at each call",
)
def numbers_stored(editor: GraphEditor, node: fx.Node) -> torch.Tensor | None:
    """Choose between tensors of which those that are numbers are constants."""
    given, dtype = operands(node), node.meta["val"].dtype
    if node in editor.constants:
        return None
    if node.target == aten.masked_fill.Scalar:
        condition, chosen = given["mask"], (given["value"], given["x"])
    else:
        condition, chosen = given["condition"], (given["x"], given["other"])
    yes, no = (editor.tensor(of) if isinstance(of, fx.Node) else _number(editor, of, dtype) for of in chosen)
    return torch.where(editor.tensor(condition), yes, no)


# What makes a mask of floats out of truths, in front of everything.
_OF_MASKS: Final = frozenset(
    [
        *(aten.where.self, aten.where.ScalarSelf, aten.where.ScalarOther, aten.where.Scalar),
        *(aten.masked_fill.Scalar, aten.masked_fill.Tensor, aten.full_like.default, _CONVERSION),
    ]
)


def _is_computed(node: fx.Node, editor: GraphEditor) -> bool:
    source = behind(node, MOVES)
    return node not in editor.constants and source.op == "call_function" and source.target not in _OF_MASKS


def _is_of_floats(node: fx.Node, editor: GraphEditor) -> bool:
    """Whether a truth is one about computed floats, or made of such."""
    if getattr(node.meta["val"], "dtype", None) is not torch.bool or node.op != "call_function":
        return False
    if node.target in _COMPARISONS:
        x = operand(node, "x")
        return bool(x.meta["val"].is_floating_point()) and _is_computed(x, editor)
    return node.target in _MADE_OF_TRUTHS and any(_is_of_floats(n, editor) for n in node.all_input_nodes)
