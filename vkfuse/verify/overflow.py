"""Sums of finite terms that go beyond what float32 holds."""

import torch


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
