"""Law 1: the whole table, rebuilt from the bytes to be written, equals what the program computes."""

from collections.abc import Callable

import torch
from torch import fx

from vkfuse.rewrite.constants import Constants
from vkfuse.rewrite.decisions import Proof, Proposal
from vkfuse.rewrite.survey import Site

CHUNK_ELEMENTS = 1 << 22  # 16 MiB of float32 a chunk

Rows = Callable[[int, int], torch.Tensor]


def prove(site: Site, proposal: Proposal, constants: Constants) -> Proof:
    """Compare `proposal` with the program's table bit for bit, in chunks of rows.

    The proof is "exact" where every bit agrees, else "rounded" with the largest absolute difference.
    """
    grid, original = site.numbers(), original_rows(site, constants)
    step = max(1, CHUNK_ELEMENTS // max(1, grid.columns))
    error, exact = 0.0, True
    for low in range(0, grid.rows, step):
        high = min(low + step, grid.rows)
        wanted, rebuilt = original(low, high), proposal.rebuild(low, high)
        if not _same_bits(wanted, rebuilt):
            exact = False
            error = max(error, _difference(wanted, rebuilt))
    return Proof(kind="exact" if exact else "rounded", max_abs_error=error)


def original_rows(site: Site, constants: Constants) -> Rows:
    """A function (low, high) -> rows of the float table that the program computes for `site`."""
    if site.operand is None:
        return _lookup_rows(site, constants)
    if site.operand.target == torch.ops.torchao.dequantize_affine.default and not site.transposed:
        chunked = _affine_rows(site.operand, constants)
        if chunked is not None:
            return chunked
    whole = constants.value(site.operand)
    if site.transposed:
        whole = whole.t()
    return lambda low, high: whole[low:high]


def _lookup_rows(site: Site, constants: Constants) -> Rows:
    """Run the lookup itself over all indices."""
    node = site.node
    inputs = {i: constants.value(i) for i in node.all_input_nodes if i in constants}

    def rows(low: int, high: int) -> torch.Tensor:
        indices = torch.arange(low, high)
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda n: inputs.get(n, indices))
        return node.target(*args, **kwargs)  # type: ignore[operator, no-any-return]

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

    def rows(low: int, high: int) -> torch.Tensor:
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda n: inputs[n][low:high])
        return node.target(*args, **kwargs)  # type: ignore[operator, no-any-return]

    return rows


_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def _same_bits(left: torch.Tensor, right: torch.Tensor) -> bool:
    if left.dtype != right.dtype or left.shape != right.shape:
        return False
    bits = _BITS[left.element_size()]
    return torch.equal(left.contiguous().view(bits), right.contiguous().view(bits))


def _difference(left: torch.Tensor, right: torch.Tensor) -> float:
    if left.shape != right.shape:
        return float("inf")
    return float((left.double() - right.double()).abs().nan_to_num(nan=float("inf")).max())
