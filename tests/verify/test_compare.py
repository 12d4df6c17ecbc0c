"""Numbers against numbers."""

import dataclasses
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from vkfuse.verify.compare import (
    RELATIVE_LIMITS,
    Tolerance,
    compare,
    compare_outputs,
    largest_change,
    widened,
)

_floats = st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=20)


@given(_floats)
def test_equal_is_without_error(numbers):
    """Whatever equals itself has no error, full cosine and no noise."""
    x = torch.tensor(numbers)
    result = compare(0, x, x.clone(), Tolerance())
    assert (result.passed, result.max_abs, result.max_rel, result.max_ulp) == (True, 0, 0, 0)
    assert result.cosine == pytest.approx(1)
    assert result.sqnr_db == math.inf


def test_errors_are_what_they_are_called():
    """Absolute, relative to the largest, units of the last place, decibels and the limit of one known difference."""
    expected = torch.tensor([1.0, -4.0, 2.0])
    got = expected + torch.tensor([0.0, 2.0**-20, 0.0])
    result = compare(3, got, expected, Tolerance())
    assert (result.index, result.dtype, result.shape) == (3, "float32", (3,))
    assert result.max_abs == 2.0**-20
    assert result.max_rel == 2.0**-22
    assert result.max_ulp == 2.0**-20 / 2.0**-21
    assert result.sqnr_db == pytest.approx(10 * math.log10(21 / 2.0**-40))
    assert result.limit == pytest.approx(4 * RELATIVE_LIMITS[torch.float32])


@pytest.mark.parametrize(
    ("got", "expected", "passed"),
    [
        ([1.0, math.nan], [1.0, math.nan], True),
        ([1.0, math.inf], [1.0, math.inf], True),
        ([1.0, math.nan], [1.0, 2.0], False),
        ([1.0, 2.0], [1.0, math.nan], False),
        ([1.0, math.inf], [1.0, -math.inf], False),
        ([1.0, 1e30], [1.0, math.inf], False),
    ],
)
def test_what_is_no_number_must_agree(got, expected, passed):
    """NaN and infinity pass only in the places where the program has the same."""
    assert compare(0, torch.tensor(got), torch.tensor(expected), Tolerance()).passed is passed


def test_a_limit_is_widened_unless_the_user_chose_it():
    """What is over the limit by less than is added passes, NaN where there is none never does, a chosen limit stays."""
    expected = torch.tensor([4.0, 1.0])
    for tolerance, off, passed in (
        (Tolerance(), 0.5, True),
        (Tolerance(), 0.7, False),
        (Tolerance(atol=0.1), 0.5, False),
    ):
        found = widened(compare(0, expected + off, expected, tolerance), 0.6, tolerance)
        assert (found.passed, found.max_abs) == (passed, pytest.approx(off))
    assert not widened(compare(0, expected * math.nan, expected, Tolerance()), 1e9, Tolerance()).passed


@pytest.mark.parametrize("dtype", list(RELATIVE_LIMITS))
def test_limits_are_by_type(dtype):
    """Just under a type's limit passes, twice the limit does not."""
    expected = torch.tensor([8.0, 1.0], dtype=torch.float64)
    for share, passed in ((0.9, True), (2.1, False)):
        got = expected + torch.tensor([0.0, 8.0 * RELATIVE_LIMITS[dtype] * share], dtype=torch.float64)
        assert compare(0, got, expected.to(dtype), Tolerance()).passed is passed


def test_integers_agree_exactly():
    """Integers and booleans have no tolerance, and are no floats."""
    assert compare(0, torch.tensor([1, 2]), torch.tensor([1, 2]), Tolerance()).passed
    assert not compare(0, torch.tensor([1, 3]), torch.tensor([1, 2]), Tolerance()).passed
    assert not compare(0, torch.tensor([True]), torch.tensor([False]), Tolerance()).passed
    assert not compare(0, torch.tensor([1.0]), torch.tensor([1]), Tolerance()).passed


def test_another_shape_differs():
    """An output of another shape differs, even where it could be broadcast."""
    result = compare(0, torch.zeros(1, 3), torch.zeros(3), Tolerance())
    assert (result.passed, result.max_abs) == (False, math.inf)


def test_top_1_counts_rows():
    """Agreement of the largest entry is counted by rows, for rows that look like logits."""
    expected = torch.eye(16)[:4]
    got = expected.clone()
    got[3] = torch.eye(16)[9]
    assert compare(0, got, expected, Tolerance()).top1 == 0.75
    assert compare(0, got[:, :8], expected[:, :8], Tolerance()).top1 is None


def test_a_chosen_tolerance_is_taken_as_it_is():
    """Atol and rtol of the user are torch.allclose's."""
    expected = torch.tensor([100.0, 1.0])
    assert compare(0, torch.tensor([100.9, 1.0]), expected, Tolerance(rtol=0.01)).passed
    assert not compare(0, torch.tensor([100.0, 1.5]), expected, Tolerance(rtol=0.01)).passed
    assert compare(0, torch.tensor([100.0, 1.5]), expected, Tolerance(atol=0.5)).passed


@pytest.mark.parametrize(
    ("got", "expected", "passes"),
    [
        (torch.float32, torch.float16, False),
        (torch.float16, torch.float32, False),
        (torch.int32, torch.int64, True),
        (torch.float16, torch.float16, True),
        (torch.int32, torch.float32, False),
    ],
)
def test_types_of_outputs(got, expected, passes):
    """A float of another width is another output, though the values are equal; integers may be narrower in the file."""
    ours, theirs = torch.ones(3, dtype=got), torch.ones(3, dtype=expected)
    assert compare_outputs(0, ours, theirs, Tolerance()).passed == passes


def test_parts_make_the_whole(monkeypatch):
    """What is compared in parts gives what is compared at once, numbers that are none and infinite ones too."""
    made = torch.Generator().manual_seed(0)
    expected = torch.randn(5, 16, generator=made)
    expected[3, 2], expected[0, 1] = math.inf, math.nan
    got = expected * (1 + 1e-5 * torch.randn(5, 16, generator=made))
    for tolerance in (Tolerance(), Tolerance(rtol=1e-5, atol=1e-6)):
        for one, other in (
            (got, expected),
            (got[:3], expected[:3]),
            (got[1:3], expected[1:3]),
            (got[:0], got[:0]),
        ):
            monkeypatch.setattr("vkfuse.verify.compare._PIECE", 1 << 20)
            whole = _numbers(compare(0, one, other, tolerance))
            monkeypatch.setattr("vkfuse.verify.compare._PIECE", 7)
            assert _numbers(compare(0, one, other, tolerance)) == pytest.approx(whole, nan_ok=True)


def _numbers(result):
    return {
        name: value for name, value in dataclasses.asdict(result).items() if name not in {"dtype", "shape"}
    }


class _Largest(TorchDispatchMode):
    """The largest number of float64 values that an operator makes."""

    values = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor) and made.dtype is torch.float64:
            self.values = max(self.values, made.numel())
        return made


def test_memory_of_large_outputs():
    """Two outputs of 4 million values are compared without a float64 copy of one."""
    values = torch.ones(1 << 22)
    with _Largest() as largest:
        assert compare(0, values, values, Tolerance()).passed
        assert largest_change(values, values) == 0
    assert 0 < largest.values < values.numel()
