"""Numbers against numbers: errors, agreement, and how much error passes."""

import math
from dataclasses import dataclass
from typing import Any, Final

import torch

from vkfuse.verify.verdict import OutputError

# Share of an output's largest value, by its type: sums in another order (float32); each stored activation
# rounded to 11 or 8 bits, and some accumulation (float16, bfloat16). Integers and booleans must agree.
RELATIVE_LIMITS: Final = {
    torch.float64: 1e-4,
    torch.float32: 1e-4,
    torch.float16: 1e-2,
    torch.bfloat16: 4e-2,
}
_FLOOR: Final = 1e-7  # absolute: an output that should be zero
_SMALL: Final = 1e-3  # share of the largest value under which units of the last place mean nothing
_LOGITS_FROM: Final = 16  # entries in a row before its largest one is worth comparing


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """What passes: `atol + rtol * |expected|`; None is the type's limit in relation to the largest value."""

    atol: float | None = None
    rtol: float | None = None
    arithmetic: torch.dtype | None = None  # that the file was asked to compute in, where not the outputs' own
    noise: float = 0.0  # absolute, measured: what rounding of activations makes of tiny differences

    @property
    def given(self) -> bool:
        """Whether the user chose it."""
        return self.atol is not None or self.rtol is not None


def compare_outputs(index: int, got: Any, expected: Any, tolerance: Tolerance) -> OutputError:
    """Compare an output of a file and of its program, which callers read as one type; integers may be narrower there."""
    typed = isinstance(got, torch.Tensor) and isinstance(expected, torch.Tensor)
    if typed and got.is_floating_point() and got.dtype is not expected.dtype:
        return _unlike(index, got, expected)
    return compare(index, got, expected, tolerance)


def compare(index: int, got: Any, expected: Any, tolerance: Tolerance) -> OutputError:
    """Compare one output; anything but tensors must be equal."""
    if got is None or expected is None:
        return _nothing(index, got, expected)
    got, expected = _as_tensor(got), _as_tensor(expected)
    if got.shape != expected.shape or got.dtype.is_floating_point != expected.dtype.is_floating_point:
        return _unlike(index, got, expected)
    limit = limits(expected, tolerance)
    a, b = got.detach().reshape(-1).double(), expected.detach().reshape(-1).double()
    same = (a == b) | (a.isnan() & b.isnan())
    error = torch.where(same, 0.0, (a - b).abs()).nan_to_num(nan=math.inf, posinf=math.inf)
    largest = float(b.abs().nan_to_num(0.0, 0.0, 0.0).max()) if b.numel() else 0.0
    worst = float(error.max()) if error.numel() else 0.0
    return OutputError(
        index=index,
        dtype=str(expected.dtype).removeprefix("torch."),
        shape=tuple(expected.shape),
        max_abs=worst,
        max_rel=worst / largest if largest else (0.0 if worst == 0 else math.inf),
        max_ulp=_ulps(expected, error, largest),
        cosine=_cosine(a, b),
        sqnr_db=_sqnr(error, b),
        top1=_top1(got, expected),
        limit=float(limit.max()) if limit.numel() else 0.0,
        passed=bool((error <= limit.reshape(-1)).all()),
    )


def limits(expected: torch.Tensor, tolerance: Tolerance) -> torch.Tensor:
    """Return float64 of the shape of `expected`: the largest error of each value that passes."""
    magnitude = expected.detach().double().abs().nan_to_num(0.0, 0.0, 0.0)
    if tolerance.given:
        return magnitude * (tolerance.rtol or 0.0) + (tolerance.atol or 0.0)
    share = RELATIVE_LIMITS.get(expected.dtype, 0.0)
    if share and tolerance.arithmetic is not None:
        share = max(share, RELATIVE_LIMITS[tolerance.arithmetic])
    largest = magnitude.max() if magnitude.numel() else torch.zeros(())
    floor = _FLOOR if share else 0.0
    return torch.full_like(magnitude, max(float(share * largest), floor) + tolerance.noise)


def _nothing(index: int, got: Any, expected: Any) -> OutputError:
    """Return the verdict on outputs of which one is None at least."""
    same = got is None and expected is None
    kinds = "none" if same else f"{type(got).__name__}, not {type(expected).__name__}"
    return _without_numbers(index, kinds, (), same=same)


def _as_tensor(value: Any) -> torch.Tensor:
    return value if isinstance(value, torch.Tensor) else torch.tensor(value)


def _unlike(index: int, got: torch.Tensor, expected: torch.Tensor) -> OutputError:
    """Return the verdict on outputs of different shape or kind."""
    kinds = f"{got.dtype}, not {expected.dtype}".replace("torch.", "")
    return _without_numbers(index, kinds, tuple(got.shape), same=False)


def _without_numbers(index: int, dtype: str, shape: tuple[int, ...], *, same: bool) -> OutputError:
    """Return the verdict on outputs whose numbers are not compared."""
    error = 0.0 if same else math.inf
    return OutputError(
        index=index,
        dtype=dtype,
        shape=shape,
        max_abs=error,
        max_rel=error,
        max_ulp=error,
        cosine=1.0 if same else 0.0,
        sqnr_db=math.inf if same else -math.inf,
        top1=None,
        limit=0.0,
        passed=same,
    )


def _ulps(expected: torch.Tensor, error: torch.Tensor, largest: float) -> float:
    """Largest error in units of the last place, of values that are at least a thousandth of the largest."""
    if not expected.dtype.is_floating_point or not error.numel():
        return float(error.max()) if error.numel() else 0.0
    info = torch.finfo(expected.dtype)
    least = max(largest * _SMALL, info.smallest_normal)
    magnitude = expected.detach().reshape(-1).double().abs()
    unit = torch.exp2(torch.floor(torch.log2(magnitude.clamp(min=least)))) * info.eps
    return float(torch.where(magnitude >= least, error / unit, 0.0).max())


def _cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return the cosine of the angle between two vectors; 1 for two zero vectors."""
    scale = float(a.norm() * b.norm())
    if scale == 0:
        return 1.0 if bool((a == b).all()) else 0.0
    return float(torch.dot(a, b)) / scale


def _sqnr(error: torch.Tensor, b: torch.Tensor) -> float:
    """Return the signal to noise ratio in decibels; infinite without noise."""
    noise, signal = float(error.square().sum()), float(b.square().sum())
    if noise == 0:
        return math.inf
    return -math.inf if signal == 0 or math.isinf(noise) else 10 * math.log10(signal / noise)


def _top1(got: torch.Tensor, expected: torch.Tensor) -> float | None:
    """Share of rows whose largest entry stands in the same place; None for what are no logits."""
    if not expected.dtype.is_floating_point or expected.dim() == 0 or expected.shape[-1] < _LOGITS_FROM:
        return None
    agree = got.nan_to_num().argmax(-1) == expected.nan_to_num().argmax(-1)
    return float(agree.double().mean())
