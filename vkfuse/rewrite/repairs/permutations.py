"""Permutations by way of a fifth dimension, in the dimensions that there are.

``nn.MultiheadAttention`` brings queries, keys and values to the front as ``x.unsqueeze(0).transpose(0, -2).squeeze(-2)``,
of five dimensions on the way, which Vulkan tensors have not. It is a permutation of the four. Windows of an image, patches,
and shuffled channels are a view, a permutation and a view, of five or six dimensions of which some stay side by side.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import fx

from vkfuse.rewrite.editor import GraphEditor
from vkfuse.rewrite.moves import PERMUTATIONS, VIEWS, behind, blocks_of, order_of, readers
from vkfuse.rewrite.operands import operand
from vkfuse.rewrite.repairs.each import replaces

aten = torch.ops.aten

_MOST = 4


@replaces(aten.squeeze.dim, code="permuted-in-four-dimensions", detail="four dimensions in place of five")
def permutations_without_ones(editor: GraphEditor, x: fx.Node, dim: int) -> torch.Tensor | None:
    """Replace each squeezed transposition of an unsqueezed tensor of four dimensions."""
    rank, added = x.meta["val"].ndim, operand(x, "x") if x.target in PERMUTATIONS else x
    if added is x or rank <= _MOST or added.target != aten.unsqueeze.default:
        return None
    order, new = order_of(x), operand(added, "dim") % rank
    if order.pop(dim % rank) != new:
        return None
    return editor.tensor(operand(added, "x")).permute([d - (d > new) for d in order])


@replaces(*VIEWS, code="permuted-in-four-dimensions", detail="dimensions that stay side by side as one")
def permutations_of_blocks(editor: GraphEditor, node: fx.Node, x: fx.Node) -> torch.Tensor | None:
    """Replace a view of a permutation of more dimensions, where those that stay side by side make it four."""
    found = _blocks(behind(x, {aten.clone.default})) if _is_plain(node) else None
    if found is None:
        return None
    source, sizes, order = found
    turned = editor.tensor(source).reshape(sizes).permute(order)
    return turned.reshape(_known(node.meta["val"].shape))


def _blocks(node: fx.Node) -> tuple[fx.Node, list[int], list[int]] | None:
    """What `node` permutes the view of, the sizes of its blocks, and their order; None where they are more than four."""
    if node.target not in PERMUTATIONS or node.meta["val"].ndim <= _MOST or not _only_viewed(node):
        return None
    before = operand(node, "x")
    blocks, order = blocks_of(before.meta["val"].shape, order_of(node))
    sizes = _known(blocks)
    if not 0 < len(sizes) <= _MOST or sizes.count(-1) > 1:
        return None
    return operand(before, "x") if before.target in VIEWS else before, sizes, order


def _known(sizes: Iterable[int]) -> list[int]:
    """Sizes, -1 where one is symbolic."""
    return [size if isinstance(size, int) else -1 for size in sizes]


def _only_viewed(node: fx.Node) -> bool:
    """Whether everything that reads a permutation, through copies, are views that can be said anew."""
    return all(user.target in VIEWS and _is_plain(user) for user in readers(node, {aten.clone.default}))


def _is_plain(node: fx.Node) -> bool:
    """Of at most four dimensions, one of them symbolic."""
    shape = node.meta["val"].shape
    return len(shape) <= _MOST and sum(isinstance(size, torch.SymInt) for size in shape) <= 1


@replaces(
    aten.permute.default, code="dimensions-from-the-front", detail="the runtime resizes by them as given"
)
def dimensions_from_the_front(editor: GraphEditor, node: fx.Node, dims: Sequence[int]) -> torch.Tensor | None:
    """Count the dimensions of each permutation from the first one."""
    return editor.again(node, dims=order_of(node)) if min(dims, default=0) < 0 else None


@replaces(*PERMUTATIONS, code="permutations-in-one", detail="one copy in place of two")
def permutations_in_one(editor: GraphEditor, node: fx.Node, x: fx.Node) -> torch.Tensor | fx.Node | None:
    """Replace each permutation of a permuted tensor by one of that tensor, or by it, copies aside."""
    if x.target not in PERMUTATIONS:
        return None
    source, before = operand(x, "x"), order_of(x)
    order = [before[d] for d in order_of(node)]
    return source if order == sorted(order) else editor.tensor(source).permute(order)
