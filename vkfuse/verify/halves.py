"""Products of half-precision matrices whose sums are kept in half, one term after the other; sums beyond float32.

Source: glsl/linear.glsl and glsl/matmul.glsl of buffers, which multiply and add at once; kernels/portable/cpu/vec_ops.h,
vec_matmul, which rounds the product first. Measured: within a unit of the last place. The optimized CPU kernels sum in
float32.
"""

from collections.abc import Sequence
from typing import Final

import torch

_SHORT: Final = 256  # terms whose sum in half is next to that in float32
_MOST_TERMS: Final = (
    1 << 28
)  # that are added one after the other, some seconds; the rows beyond are summed in float32


def is_summed_in_half(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Whether it shows in a product of [.., M, K] and [.., K, N]."""
    return first.dtype is second.dtype is torch.float16 and first.shape[-1] > _SHORT


def product_in_half(first: torch.Tensor, second: torch.Tensor, *, fused: bool) -> torch.Tensor:
    """Multiply [.., M, K] and [.., K, N], float16: `fused` rounds each sum only, else each product too."""
    out = torch.matmul(first.float(), second.float())
    terms = first.shape[-1] * second.shape[-1] * first.shape[:-2].numel()
    rows = max(1, _MOST_TERMS // max(1, terms))
    total = torch.zeros_like(out[..., :rows, :])
    for k in range(first.shape[-1]):
        term = first[..., :rows, k, None].float() * second[..., k, None, :].float()
        total = (total + (term if fused else term.half().float())).half().float()
    out[..., :rows, :] = total
    return out.half()


def variance(
    x: torch.Tensor, dims: Sequence[int] | None, correction: float, *, keepdim: bool
) -> torch.Tensor:
    """The variance of a tensor in half or bfloat16 whose sums are kept in that, one term after the other.

    Source: kernels/portable/cpu/op_var.cpp, compute_variance, which sums in the output's type.
    """
    along = [d % x.dim() for d in dims or range(x.dim())]
    kept = [1 if d in along else size for d, size in enumerate(x.shape)]
    terms = x.movedim(along, tuple(range(len(along)))).flatten(0, len(along) - 1)
    off = terms - _summed(terms) / len(terms)
    out = (_summed(off * off) / (len(terms) - correction)).reshape(kept)
    return out if keepdim else out.squeeze(along)


def _summed(terms: torch.Tensor) -> torch.Tensor:
    total = torch.zeros_like(terms[0])
    for term in terms:
        total = total + term
    return total


def of_any_order(out: torch.Tensor, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Return the product `out` of [.., M, K] and [.., K, N], NaN where its sum is not the same in every order.

    Terms of both signs overflow there: infinity of one or the other, or their difference, comes first (measured).
    """
    if bool(out.isfinite().all()):
        return out
    (up, down), (right_up, right_down) = (_parts(each.float()) for each in (first, second))
    most, least = up @ right_up + down @ right_down, up @ right_down + down @ right_up
    return torch.where(most.isinf() & least.isinf(), torch.nan, out)


def _parts(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What of values is positive, and what is negative."""
    return x.clamp(min=0.0), x.clamp(max=0.0)
