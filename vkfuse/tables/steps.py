"""The step of a group of floats: the scale by which integers become these floats, bit for bit, where there is one.

A group is ``float(integer) * scale``, rounded to its type. The value of largest magnitude is a small integer k times the
scale, so that the scale is that value divided by k, or one of the next few floats. Every k is tried, those first that
served most groups before, and each only on the groups that are still open.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from vkfuse.pte.enums import ScalarType
from vkfuse.tables.floats import Array, coarseness, rounded

_NEIGHBOURS: Final = (
    1,
    -1,
    2,
    -2,
)  # dividing undoes the rounding of a product but for so many units in the last place
_FINE: Final = 2.0**-23
_BYTE: Final = 8
_NEAR: Final = 4  # units in the last place of the largest value, within which a neighbour may do better


@dataclass(frozen=True, slots=True)
class Divisor:
    """What the value of largest magnitude is divided by: `size`, of the value's sign, or where `turned` of the other."""

    size: int
    turned: bool = False

    def of(self, ends: Array) -> Array:
        """The divisor of each of `ends` [n]."""
        same = (ends < 0) == self.turned
        return np.where(same, np.float32(self.size), np.float32(-self.size))


class Order:
    """The divisors that integers of so many bits allow, at most eight, those first that served most groups so far."""

    def __init__(self, bits: int) -> None:
        self.low, self.high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
        self.dtype = np.int8 if bits <= _BYTE else np.int16
        sizes = range(-self.low, 0, -1)
        self._served = {Divisor(size, turned): 0 for turned in (False, True) for size in sizes}

    def __iter__(self) -> Iterator[Divisor]:
        """Give the divisors as the counts stand now."""
        return iter(sorted(self._served, key=lambda divisor: -self._served[divisor]))

    def served(self, divisor: Divisor, groups: int) -> None:
        """Count the groups for which a divisor was right."""
        self._served[divisor] += groups


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Steps:
    """What was found of n groups of g values.

    `integers` int8 or int16 [g, n], `scales` float32 [n]; `found` [n] says which are exact. `off` [n] is how far the values
    of the others are from the nearest grid that was tried, in its steps.
    """

    integers: Array
    scales: Array
    found: Array
    off: Array


def find_steps(values: Array, kind: ScalarType, order: Order) -> Steps:
    """The steps of groups: `values` float32 [g, n] in memory order, a group a column, numbers of the type `kind`."""
    ends = _ends(values)
    steps = _empty(values, ends, order)
    for divisor in order:
        (left,) = np.nonzero(_open(steps, ends, divisor, order))
        if len(left):
            part = values if len(left) == values.shape[1] else values[:, left]
            fits = _fit(part, ends[left], divisor, kind, order)
            _keep(steps, left, fits)
            order.served(divisor, int(fits.found.sum()))
    with np.errstate(all="ignore"):
        _reduce(values, ends, steps, kind)
    return steps


def distance(values: Array, bits: int, kind: ScalarType) -> float:
    """How far the worst of some groups [g, n] is from the nearest grid of so many bits, roughly, in its steps; cheap.

    What a number of the type `kind` may be off by its own rounding, and the largest by its, does not count.
    """
    sizes = np.arange(1, (1 << (bits - 1)) + 1, dtype=np.float32)
    ends = np.abs(values).max(axis=0)
    if not np.isfinite(ends).all():
        return float("inf")
    steps = np.where(ends > 0, ends, np.float32(1)) / sizes[:, None]
    integers = values / steps[:, None, :]
    nearest = np.rint(integers)
    off = (np.abs(integers - nearest) - np.abs(nearest) * np.float32(coarseness(kind))).max(axis=1)
    return float(off.min(axis=0).max())


def _ends(values: Array) -> Array:
    """The value of largest magnitude of each group, with its sign; not finite where one of the values is not."""
    high, low = values.max(axis=0), values.min(axis=0)
    ends: Array = np.where(-low > high, low, high)
    return ends


def _empty(values: Array, ends: Array, order: Order) -> Steps:
    """Nothing found but the groups of zeros, whose scale has their sign."""
    zeros = ends == 0
    negative = np.signbit(values[:, zeros])
    found = np.zeros(len(ends), bool)
    found[zeros] = negative.all(axis=0) | ~negative.any(axis=0)
    scales = np.ones(len(ends), np.float32)
    scales[zeros] = np.where(negative.all(axis=0), np.float32(-1), np.float32(1))
    return Steps(
        integers=np.zeros(values.shape, order.dtype),
        scales=scales,
        found=found,
        off=np.where(zeros, np.float32(0), np.float32(np.inf)),
    )


def _open(steps: Steps, ends: Array, divisor: Divisor, order: Order) -> Array:
    """Which groups have no step yet, and may have one by this divisor."""
    allowed = divisor.of(ends)
    open_: Array = (
        ~steps.found & np.isfinite(ends) & (ends != 0) & (allowed >= order.low) & (allowed <= order.high)
    )
    return open_


def _keep(steps: Steps, at: Array, fits: Steps) -> None:
    """Write what fits into `steps`."""
    good = at[fits.found]
    if len(good) == len(steps.found):
        steps.integers[...] = fits.integers
    else:
        steps.integers[:, good] = fits.integers[:, fits.found]
    steps.scales[good], steps.found[good] = fits.scales[fits.found], True
    steps.off[at] = np.minimum(steps.off[at], fits.off)


def _fit(values: Array, ends: Array, divisor: Divisor, kind: ScalarType, order: Order) -> Steps:
    """The groups by one divisor."""
    with np.errstate(all="ignore"):
        scales = rounded(ends / divisor.of(ends), kind).astype(np.float32, copy=False)
        return _settled(values, _integers(values, scales, order), scales, ends, kind)


def _settled(values: Array, integers: Array, scales: Array, ends: Array, kind: ScalarType) -> Steps:
    """The groups by these integers: by these scales, and by those next to them where these are nearly right."""
    steps = _tried(values, integers, scales, kind)
    near = ~steps.found & (
        steps.off <= np.abs(ends / scales) * np.float32(_NEAR * max(_FINE, coarseness(kind)))
    )
    for candidates in _beside(values, steps, near, kind) if near.any() else ():
        (left,) = np.nonzero(near & ~steps.found)
        if len(left):
            again = _tried(values[:, left], integers[:, left], candidates[left], kind)
            good = left[again.found]
            steps.scales[good], steps.found[good] = again.scales[again.found], True
    return steps


def _reduce(values: Array, ends: Array, steps: Steps, kind: ScalarType) -> None:
    """Divide the integers of a group by what they have in common, where these give the same floats too."""
    (left,) = np.nonzero(steps.found & ~(np.abs(steps.integers) == 1).any(axis=0))
    common = np.gcd.reduce(steps.integers[:, left].astype(np.int16), axis=0)
    left, common = left[common > 1], common[common > 1]
    if len(left):
        integers = (steps.integers[:, left] // common).astype(np.float32)
        scales = rounded(steps.scales[left] * common, kind).astype(np.float32)
        _keep(steps, left, _settled(values[:, left], integers, scales, ends[left], kind))


def _integers(values: Array, scales: Array, order: Order) -> Array:
    """The nearest integers, as floats without a negative zero."""
    integers = values * (np.float32(1) / scales)
    np.rint(integers, out=integers)
    np.clip(integers, order.low, order.high, out=integers)
    integers += np.float32(0)
    return integers


def _tried(values: Array, integers: Array, scales: Array, kind: ScalarType) -> Steps:
    """Which groups these integers and scales give, bit for bit."""
    rebuilt = rounded(integers * scales, kind).astype(np.float32, copy=False)
    found = (rebuilt.view(np.int32) == values.view(np.int32)).all(axis=0)
    off = np.zeros(len(scales), np.float32)
    if not found.all():
        np.subtract(rebuilt, values, out=rebuilt)
        off = np.abs(rebuilt, out=rebuilt).max(axis=0) / np.abs(scales)
    return Steps(integers=integers, scales=scales.copy(), found=found, off=off)


def _beside(values: Array, steps: Steps, near: Array, kind: ScalarType) -> Iterator[Array]:
    """Scales that may do better than those of `steps`: the next of the type, then of float32 where that is finer."""
    first = steps.scales.copy()
    for units in _NEIGHBOURS:
        yield _next(first, units, kind)
    if kind is not ScalarType.FLOAT:
        between = first.copy()
        between[near] = _between(values[:, near], steps.integers[:, near], kind)
        yield between


def _next(scales: Array, units: int, kind: ScalarType) -> Array:
    """The numbers that many units in the last place away."""
    if kind is ScalarType.HALF:
        halves = scales.astype(np.float16).view(np.int16) + np.int16(units)
        return halves.view(np.float16).astype(np.float32)
    step = units << 16 if kind is ScalarType.BFLOAT16 else units
    return (scales.view(np.int32) + np.int32(step)).view(np.float32)


def _between(values: Array, integers: Array, kind: ScalarType) -> Array:
    """A float32 scale in the middle of those that round to all values of a group."""
    sizes, by = np.abs(values), np.abs(integers)
    lowest = np.where(by > 0, (sizes + _next(sizes, -1, kind)) / 2 / by, -np.inf).max(axis=0)
    highest = np.where(by > 0, (sizes + _next(sizes, 1, kind)) / 2 / by, np.inf).min(axis=0)
    signs = np.where((integers * values).sum(axis=0) < 0, np.float32(-1), np.float32(1))
    middle: Array = ((lowest + highest) / 2 * signs).astype(np.float32)
    return middle
