"""Numbers that a program reads off its tensors (``position.item()``), made tensors again."""

import operator
from typing import Any, Final

import torch
from torch import fx

from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.operands import operand

aten = torch.ops.aten

ITEMS: Final = (aten.item.default, aten._local_scalar_dense.default)  # noqa: SLF001 - the operator's name
_TERMS: Final = (operator.add, operator.sub, operator.mul)
_ASSERTIONS: Final = (
    aten._assert_scalar.default,  # noqa: SLF001 - the operator's name
    aten.sym_constrain_range.default,
    aten.sym_constrain_range_for_size.default,
)


def positions(editor: GraphEditor, start: Any, size: Any) -> torch.Tensor:
    """int64 [size]: start, start + 1, ...; `size` an int or a node of the copy."""
    first = as_tensor(editor, start)
    return first.reshape([1]) if size == 1 else editor.arange(size) + first


def as_tensor(editor: GraphEditor, number: Any) -> torch.Tensor:
    """A number as an int64 tensor without dimensions."""
    if not isinstance(number, fx.Node):
        return editor.stored(torch.tensor(number), "position")
    if number.target in ITEMS:
        tensor = editor.tensor(operand(number, "x"))
        return (tensor.reshape([]) if tensor.ndim else tensor).to(torch.int64)
    if number.target in _TERMS:
        return number.target(*(as_tensor(editor, term) for term in number.args))  # type: ignore[no-any-return]
    return editor.tensor(editor.call(aten.scalar_tensor.default, number, dtype=torch.int64))


def is_read(number: Any) -> bool:
    """Whether a number is read off a tensor of integers, sizes and other such numbers added."""
    return (
        is_known(number) and isinstance(number, fx.Node) and any(t.target in ITEMS for t in _leaves(number))
    )


def is_known(number: Any) -> bool:
    """Whether `as_tensor` takes a number."""
    if not isinstance(number, fx.Node):
        return isinstance(number, int)
    return all(_is_leaf(leaf) for leaf in _leaves(number))


def _is_leaf(node: fx.Node) -> bool:
    if node.target in ITEMS:
        kind = operand(node, "x").meta["val"].dtype
        return not kind.is_floating_point and kind != torch.bool
    return node.target == aten.sym_size.int


def _leaves(number: fx.Node) -> list[fx.Node]:
    """The nodes that a sum or a product of numbers is computed from."""
    if number.target not in _TERMS:
        return [number]
    return [leaf for term in number.all_input_nodes for leaf in _leaves(term)]


def may_be_negative(number: fx.Node) -> bool:
    """Whether nothing that a program asserts of a number keeps it from counting from the end."""
    size = number.meta["val"].node
    return bool(size.shape_env.bound_sympy(size.expr).lower < 0)


def only_asserted(number: fx.Node) -> list[fx.Node]:
    """All that is computed from a number, itself included, where nothing comes of it but assertions; else nothing."""
    found: dict[fx.Node, None] = {}
    stack = [number]
    while stack:
        node = stack.pop()
        found[node] = None
        if node is not number and node.target not in _ASSERTIONS and not _is_arithmetic(node):
            return []
        stack.extend(node.users)
    return list(found)


def _is_arithmetic(node: fx.Node) -> bool:
    """Whether a node computes a number or a truth of numbers."""
    return isinstance(node.meta.get("val"), (torch.SymInt, torch.SymBool, torch.SymFloat, int, bool))
