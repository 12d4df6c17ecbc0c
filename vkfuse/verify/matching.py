"""Whether two tensors hold the same numbers: cheap to answer when they do not, so that many can be tried."""

import torch

from vkfuse.verify.compare import RELATIVE_LIMITS


class Numbers:
    """The values of a tensor, and what they have in common in any order; NaN counts as zero and is compared apart."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.flat = tensor.detach().reshape(-1).clone()
        self.is_float = tensor.is_floating_point()
        self.share = RELATIVE_LIMITS.get(tensor.dtype, 0.0)
        exact = self.flat.double()
        self.undefined = int(exact.isnan().sum())
        exact = exact.nan_to_num()
        self.low, self.high = float(exact.min()), float(exact.max())
        mean, rms = float(exact.mean()), float(exact.square().mean().sqrt())
        # Each differs by no more than the largest difference of any two values, whatever their order.
        self.summary = (self.low, self.high, mean, rms)
        self._sorted: torch.Tensor | None = None

    def __len__(self) -> int:
        return self.flat.numel()

    def like(self, other: "Numbers", noise: float, *, any_order: bool) -> bool:
        """Whether both hold the same numbers within what passes for their types, in the same or any order.

        `noise` is what else passes, as a share of the largest value.
        """
        if self.is_float != other.is_float or len(self) != len(other) or self.undefined != other.undefined:
            return False
        largest = max(abs(other.low), abs(other.high))
        limit = (max(self.share, other.share) + noise) * largest
        if any(abs(a - b) > limit for a, b in zip(self.summary, other.summary, strict=True)):
            return False
        if _within(self.flat, other.flat, limit):
            return True
        return any_order and _within(self.sorted(), other.sorted(), limit)

    def sorted(self) -> torch.Tensor:
        """Return the values in ascending order, sorted once."""
        if self._sorted is None:
            self._sorted = self.flat.sort().values
        return self._sorted


def _within(a: torch.Tensor, b: torch.Tensor, limit: float) -> bool:
    if limit == 0 and a.dtype is b.dtype and not a.is_floating_point():
        return torch.equal(a, b)
    x, y = a.double(), b.double()
    same = (x == y) | (x.isnan() & y.isnan())
    return bool((same | ((x - y).abs() <= limit)).all())
