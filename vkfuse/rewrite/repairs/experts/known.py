"""What is known of the nodes behind a choice of experts: a place for each chosen expert of a token, or for every one."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeAlias

import torch
from torch import fx

from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.operands import operand, operands
from vkfuse.rewrite.repairs.experts.routing import Routing

aten = torch.ops.aten

DIMENSION: Final = (  # operators that name one dimension
    *(aten.unsqueeze.default, aten.squeeze.dim, aten.slice.Tensor, aten.select.int),
    *(aten.split.Tensor, aten.split_with_sizes.default, aten.softmax.int),
)


class Known:
    """What is known of a node behind a choice: no tensor by itself."""

    __slots__ = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """How chosen experts are laid out: [T, k, ...] or, flat, [T * k, ...], sorted by expert by the node `by`."""

    flat: bool = False
    by: fx.Node | None = None

    @property
    def leading(self) -> int:
        """How many dimensions say which expert of which token."""
        return 1 if self.flat else 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread(Known):
    """A tensor of the chosen experts, as `dense` of all: [T or 1, experts or 1, ...]."""

    dense: torch.Tensor
    places: Places


@dataclass(frozen=True, slots=True, kw_only=True)
class Product(Known):
    """Products [..., N] of `x` [T, experts, K] with `weight` [experts, N, K], plus `more` [.., experts, N]; not computed.

    `ones` are dimensions of one that the program has about the last, from the end.
    """

    x: torch.Tensor
    weight: torch.Tensor
    places: Places
    more: torch.Tensor | None = None
    ones: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights(Known):
    """The chosen experts' matrices: of `weight` [experts, A, B], or its transposes."""

    weight: torch.Tensor
    places: Places
    swapped: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice(Known):
    """Which experts are chosen."""

    places: Places


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts(Known):
    """How many tokens each expert has, or where each expert's end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order(Known):
    """The order that the node `by` sorts in: places (`back`: of what is sorted, in the unsorted), or their tokens."""

    by: fx.Node
    back: bool = False
    tokens: bool = False


Value: TypeAlias = Known | torch.Tensor
BY_PAIRS: Final = Places()


@dataclass(slots=True, kw_only=True)
class Walk:
    """What is known of the nodes behind a choice so far: as a tensor of all experts, or as `results` without any."""

    editor: GraphEditor
    routing: Routing
    values: dict[fx.Node, Value] = field(default_factory=dict)
    results: dict[fx.Node, torch.Tensor] = field(default_factory=dict)
    multiplied: bool = False

    def of(self, given: Any) -> Any:
        """What is known of an argument, else the tensor, or itself."""
        if not isinstance(given, fx.Node):
            return given
        return self.values.get(given) or _repeated(self, given) or self.editor.tensor(self.editor.node(given))

    def operands(self, node: fx.Node) -> list[Any]:
        """What is known of each operand of a call."""
        return [self.of(given) for given in operands(node).values()]


Rule: TypeAlias = Callable[[Walk, fx.Node], Value | None]


def is_tensor(value: Any) -> bool:
    """Whether what is known of an argument is only that it is a tensor."""
    return isinstance(value, fx.Proxy)


def _repeated(walk: Walk, node: fx.Node) -> Spread | None:
    """A tensor of tokens, each repeated for its experts."""
    if node.target == aten.unsqueeze.default:
        inner = _repeated(walk, operand(node, "x"))
        return None if inner is None else moved(walk, node, inner)
    if node.target != aten.repeat_interleave.self_int or node.kwargs:
        return None
    x, count, dim, _ = operands(node).values()
    if (count, dim) != (walk.routing.count, 0):
        return None
    return Spread(dense=walk.editor.tensor(x).unsqueeze(1), places=Places(flat=True))


def moved(walk: Walk, node: fx.Node, value: Spread) -> Spread | None:
    """`node`, which names one dimension behind the pairs, over all experts."""
    rank = len(shape_of(operand(node, "x"))) + (node.target == aten.unsqueeze.default)
    dim = operand(node, "dim") % rank
    if dim < value.places.leading:
        return None
    dense = walk.editor.again(node, x=value.dense, dim=dim + 2 - value.places.leading)
    return replace(value, dense=dense)


def shape_of(node: fx.Node) -> torch.Size:
    """The sizes of what a node computes."""
    shape: torch.Size = node.meta["val"].shape
    return shape
