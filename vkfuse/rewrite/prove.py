"""Law 1: the whole table, rebuilt from the bytes to be written, equals what the program computes."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import fx

from vkfuse.rewrite.constants import Constants
from vkfuse.rewrite.decisions import Proof, Proposal
from vkfuse.rewrite.survey import Site

CHUNK_ELEMENTS = 1 << 22  # 16 MiB of float32 a chunk

Rows = Callable[[int, int], torch.Tensor]


Within = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """What a table rebuilt from bytes has of the program's: `differing` values that are not within what is allowed.

    `rounded` values differ within it; `largest` is the largest absolute difference of all, `first_row` the first row that
    has one of `differing`. `exact`: every bit is the program's.
    """

    differing: int
    rounded: int
    largest: float
    first_row: int | None
    exact: bool

    @property
    def proof(self) -> Proof:
        """The same as what is said of a table."""
        return Proof(kind="exact" if self.exact else "rounded", max_abs_error=self.largest)


def prove(site: Site, proposal: Proposal, constants: Constants) -> Proof:
    """Compare `proposal` with the program's table bit for bit, in chunks of rows.

    The proof is "exact" where every bit agrees, else "rounded" with the largest absolute difference.
    """
    grid = site.numbers()
    return difference(original_rows(site, constants), proposal.rebuild, grid.rows, grid.columns).proof


def equal(rebuilt: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Which values are the same, NaN too."""
    return (rebuilt == wanted) | (rebuilt.isnan() & wanted.isnan())


def difference(
    wanted: Rows,
    rebuilt: Rows,
    rows: int,
    columns: int,
    *,
    within: Within = equal,
    chunk: int | None = None,
) -> Difference:
    """Compare rows [0, rows) of two tables, `chunk` values at a time; `within` says which others are allowed."""
    step = max(1, (chunk or CHUNK_ELEMENTS) // max(1, columns))
    parts = [
        _compared(wanted(low, min(low + step, rows)), rebuilt(low, min(low + step, rows)), low, within)
        for low in range(0, rows, step)
    ]
    return Difference(
        differing=sum(part.differing for part in parts),
        rounded=sum(part.rounded for part in parts),
        largest=max((part.largest for part in parts), default=0.0),
        first_row=next((part.first_row for part in parts if part.first_row is not None), None),
        exact=all(part.exact for part in parts),
    )


def _compared(wanted: torch.Tensor, rebuilt: torch.Tensor, low: int, within: Within) -> Difference:
    """Compare one chunk, whose first row is `low`."""
    if _same_bits(wanted, rebuilt):
        return _SAME
    if wanted.shape != rebuilt.shape:
        return Difference(
            differing=wanted.numel(), rounded=0, largest=float("inf"), first_row=low, exact=False
        )
    same = equal(rebuilt, wanted)
    wrong = ~(same | within(rebuilt, wanted))
    rows, differing = wrong.flatten(1).any(dim=1).nonzero(), int(wrong.sum())
    return Difference(
        differing=differing,
        rounded=wanted.numel() - int(same.sum()) - differing,
        largest=float(apart(rebuilt, wanted).masked_fill(same, 0.0).max()),
        first_row=low + int(rows[0]) if len(rows) else None,
        exact=False,
    )


_SAME = Difference(differing=0, rounded=0, largest=0.0, first_row=None, exact=True)


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


def apart(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Absolute differences; what is no number is infinitely far off."""
    if left.dtype is torch.float32:
        return (left - right).abs_().nan_to_num_(nan=float("inf"), posinf=float("inf"))
    return (left.double() - right.double()).abs_().nan_to_num_(nan=float("inf"), posinf=float("inf"))
