"""Law 1 of graphs: what a proposal rebuilds against the table that the program computes for a site."""

import torch
from torch import fx

from vkfuse.program.tensors import array
from vkfuse.rewrite.constants import Constants
from vkfuse.rewrite.sites import Site
from vkfuse.tables.decisions import Offer
from vkfuse.tables.floats import Array
from vkfuse.tables.proof import Rows, difference
from vkfuse.tables.proven import Proof


def prove(site: Site, proposal: Offer, constants: Constants) -> Proof:
    """Compare `proposal` with the program's table bit for bit, in chunks of rows.

    The proof is "exact" where every bit agrees, else "rounded" with the largest absolute difference.
    """
    grid = site.numbers()
    return difference(original_rows(site, constants), proposal.rebuild, grid.rows, grid.columns).proof


def original_rows(site: Site, constants: Constants) -> Rows:
    """A function (low, high) -> rows of the float table that the program computes for `site`; columns are other axes."""
    if site.operand is None:
        return _lookup_rows(site, constants)
    if site.operand.target == torch.ops.torchao.dequantize_affine.default and not site.transposed:
        chunked = _affine_rows(site.operand, constants)
        if chunked is not None:
            return chunked
    whole = constants.value(site.operand)
    if site.transposed:
        whole = whole.t()
    return lambda low, high: array(whole[low:high]).reshape(high - low, -1)


def _lookup_rows(site: Site, constants: Constants) -> Rows:
    """Run the lookup itself over all indices."""
    node = site.node
    inputs = {i: constants.value(i) for i in node.all_input_nodes if i in constants}

    def rows(low: int, high: int) -> Array:
        indices = torch.arange(low, high)
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda n: inputs.get(n, indices))
        return array(node.target(*args, **kwargs))  # type: ignore[operator]

    return rows


def _affine_rows(node: fx.Node, constants: Constants) -> Rows | None:
    """Dequantize only the wanted rows, where each row has scales of its own: a table can be larger than memory."""
    inputs = {i: constants.value(i) for i in node.all_input_nodes}
    count = node.meta["val"].shape[0]
    block = node.args[1]
    if (
        not isinstance(block, (list, tuple))
        or block[0] != 1
        or any(v.shape[:1] != (count,) for v in inputs.values())
    ):
        return None

    def rows(low: int, high: int) -> Array:
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda n: inputs[n][low:high])
        return array(node.target(*args, **kwargs)).reshape(high - low, -1)  # type: ignore[operator]

    return rows
