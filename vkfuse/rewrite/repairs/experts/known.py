"""What is known of the nodes behind a choice of experts: a place for each chosen expert of a token, or for every one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeAlias

import torch
from torch import fx

from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.operands import operand
from vkfuse.rewrite.repairs.experts.routing import Routing

aten = torch.ops.aten

DIMENSION: Final[Mapping[Any, int]] = {  # where an operator names the dimension
    aten.unsqueeze.default: 1,
    aten.squeeze.dim: 1,
    aten.slice.Tensor: 1,
    aten.select.int: 1,
    aten.split.Tensor: 2,
    aten.split_with_sizes.default: 2,
    aten.softmax.int: 1,
}


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
class Spread:
    """A tensor of the chosen experts, as `dense` of all: [T or 1, experts or 1, ...]."""

    dense: fx.Node
    places: Places


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """Products [..., N] of `x` [T, experts, K] with `weight` [experts, N, K], plus `more` [.., experts, N]; not computed.

    `ones` are dimensions of one that the program has about the last, from the end.
    """

    x: fx.Node
    weight: fx.Node
    places: Places
    more: fx.Node | None = None
    ones: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """The chosen experts' matrices: of `weight` [experts, A, B], or its transposes."""

    weight: fx.Node
    places: Places
    swapped: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Which experts are chosen."""

    places: Places


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How many tokens each expert has, or where each expert's end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """The order that the node `by` sorts in: places (`back`: of what is sorted, in the unsorted), or their tokens."""

    by: fx.Node
    back: bool = False
    tokens: bool = False


Value: TypeAlias = Spread | Product | Weights | Choice | Counts | Order | fx.Node
Rule: TypeAlias = "Callable[[Walk, fx.Node], Value | None]"
BY_PAIRS: Final = Places()


@dataclass(slots=True, kw_only=True)
class Walk:
    """What is known of the nodes behind a choice so far: as a tensor of all experts, or as `results` without any."""

    editor: GraphEditor
    routing: Routing
    values: dict[fx.Node, Value] = field(default_factory=dict)
    results: dict[fx.Node, fx.Node] = field(default_factory=dict)
    dropped: list[fx.Node] = field(default_factory=list)
    multiplied: bool = False

    def of(self, given: Any) -> Any:
        """What is known of an argument, else its node in the copy, or itself."""
        if not isinstance(given, fx.Node):
            return given
        return self.values.get(given) or _repeated(self, given) or self.editor.node(given)


def _repeated(walk: Walk, node: fx.Node) -> Spread | None:
    """A tensor of tokens, each repeated for its experts."""
    if node.target == aten.unsqueeze.default:
        inner = _repeated(walk, node.args[0])  # type: ignore[arg-type]
        return None if inner is None else moved(walk, node, inner)
    count = walk.routing.count
    if node.target != aten.repeat_interleave.self_int or node.args[1:] not in {(count, 0), (count, 0, None)}:
        return None
    rows = walk.editor.call(aten.unsqueeze.default, walk.editor.node(node.args[0]), 1)  # type: ignore[arg-type]
    return Spread(dense=rows, places=Places(flat=True))


def moved(walk: Walk, node: fx.Node, value: Spread) -> Spread | None:
    """`node`, which names one dimension behind the pairs, over all experts."""
    at = DIMENSION[node.target]
    rank = len(shape_of(node.args[0])) + (node.target == aten.unsqueeze.default)
    dim = operand(node, "dim") % rank
    if dim < value.places.leading:
        return None
    args = [*node.args[1:at], dim + 2 - value.places.leading, *node.args[at + 1 :]]
    return replace(
        value, dense=walk.editor.call(node.target, value.dense, *args, **_less(node.kwargs, "dim"))
    )


def shape_of(node: Any) -> torch.Size:
    """The sizes of what a node computes."""
    shape: torch.Size = node.meta["val"].shape
    return shape


def _less(kwargs: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in kwargs.items() if key != name}
