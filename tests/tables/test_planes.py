"""Tables as 4-bit digits that share scales: what they rebuild, and that the products by them are the table's."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vkfuse.pte.enums import ScalarType
from vkfuse.tables import nibbles
from vkfuse.tables.decisions import Refusal
from vkfuse.tables.grid import Grid
from vkfuse.tables.planes import BASE, FACTORS, NibbleRows, nibble_rows, planes, rows_by_factors
from vkfuse.tables.q4 import LOOKUP_COLUMNS, linear_scales, lookup_pack, q4_pack
from vkfuse.tables.readers import Consumer, Readers

LINEAR = Readers(consumers=frozenset({Consumer.MATMUL}))
TIED = Readers(consumers=frozenset({Consumer.GATHER, Consumer.MATMUL}))


def _grid(seed, rows, groups, group, low, high, *, points):
    rng = np.random.default_rng(seed)
    values = rng.integers(low, high, (rows, groups * group), endpoint=True)
    values.flat[0], values.flat[-1] = low, high
    return Grid(
        values=values.astype(np.int8 if low < 0 else np.uint8),
        scales=rng.random((rows, groups)).astype(np.float32) + np.float32(0.01),
        zero_points=rng.integers(low, high, (rows, groups), endpoint=True) if points else None,
        group_size=group,
        quant_min=low,
        quant_max=high,
        dtype=ScalarType.FLOAT,
    )


def _wanted(grid):
    """The table as a program computes it: a difference of integers, times a scale, in float32."""
    points = 0 if grid.zero_points is None else grid.zero_points.repeat(grid.group_size, axis=1)
    return (grid.values.astype(np.float32) - np.float32(points)) * grid.scales.repeat(grid.group_size, axis=1)


def _unpacked(packed):
    return nibbles.unpack(packed, low_first=True).astype(np.float64)


def _product(made, x):
    """What the fused matmuls compute of `x` float64 [n, columns]: digits by their scales, less offsets of sums."""
    pack = made.pack
    scales, group = pack.scales.astype(np.float64), pack.group_size
    x = np.pad(x, ((0, 0), (0, pack.padded_columns - x.shape[1])))
    out = 0.0
    for digit in made.digits:
        out = out * BASE + x @ (_unpacked(digit.packed) * scales.repeat(group, axis=1)).T
    sums = x.reshape(len(x), -1, group).sum(-1)[:, :, None] * np.array(FACTORS)
    offsets = _unpacked(made.offsets) * scales.repeat(len(FACTORS), axis=1)
    return (out - sums.reshape(len(x), -1) @ offsets.T)[:, : pack.rows]


@settings(max_examples=60)
@given(
    seed=st.integers(0, 1 << 30),
    rows=st.integers(1, 20),
    groups=st.integers(1, 5),
    group=st.sampled_from([8, 12, 16, 32]),
    bounds=st.sampled_from([(0, 15), (-8, 7), (0, 7), (-128, 127), (0, 255), (-32, 31), (-127, 127)]),
    points=st.booleans(),
)
def test_digits_are_the_table(seed, rows, groups, group, bounds, points):
    """Every bit of the table is had back, and a product by the parts is that by the table."""
    grid = _grid(seed, rows, groups, group, *bounds, points=points)
    made = planes(grid, LINEAR, 1 if bounds[1] - bounds[0] < BASE else 2)
    if isinstance(made, Refusal):
        assert made.code == "scales-by-group"
        assert group < 32
        return
    wanted = _wanted(grid)
    assert np.array_equal(made.rebuild(0, rows), wanted)
    x = np.random.default_rng(seed).standard_normal((3, grid.columns))
    assert np.allclose(_product(made, x), x @ wanted.astype(np.float64).T, rtol=1e-5, atol=1e-3)
    assert made.pack.padded_columns // made.pack.group_size % 2 == 0


def test_offsets_of_symmetric_values_are_small():
    """Six bits about zero need no offset, eight only what a digit lacks: sums of large offsets would lose precision."""
    six, eight = (planes(_grid(0, 4, 2, 32, low, -low - 1, points=False), LINEAR, 2) for low in (-32, -128))
    assert not _unpacked(six.offsets).any()
    assert {*np.unique(_unpacked(eight.offsets))} == {-8.0, 0.0}


@pytest.mark.parametrize(("low", "high", "count"), [(-8, 8, 1), (0, 16, 1), (0, 300, 2)])
def test_too_many_bits_are_refused(low, high, count):
    """One digit is of four bits, two are of eight."""
    grid = _grid(0, 4, 2, 32, low, min(high, 255), points=False)
    wide = Grid(
        **{name: getattr(grid, name) for name in Grid.__slots__} | {"values": grid.values.astype(np.int16)}
    )
    wide.values[0, 0] = high
    assert planes(wide, LINEAR, count).code == "more-than-4-bits"


@pytest.mark.parametrize(("made", "sizes"), [(planes, (1, 2)), (lookup_pack, ()), (nibble_rows, ())])
def test_memory_is_bounded_by_the_table(made, sizes):
    """A table of some hundred MB is read in pieces: at most two and a half bytes for each of its bytes at a time."""
    grid = _grid(0, 16384, 32, 32, -8, 7, points=True)
    grid = replace(grid, zero_points=grid.zero_points.astype(np.int8))
    for arguments in [(count,) for count in sizes] or [()]:
        tracemalloc.start()
        made(grid, LINEAR, *arguments)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 2.5 * grid.values.nbytes + (16 << 20)  # and some chunks


@pytest.mark.parametrize("point", [0.5, 1e10, -3e38, np.inf, np.nan])
def test_zero_points_out_of_reach_are_refused(point):
    """A zero point that is no integer near the values has no digits; none is cut to one."""
    grid = _grid(0, 4, 2, 32, -8, 7, points=False)
    grid = replace(grid, zero_points=np.full(grid.scales.shape, point, np.float32))
    assert planes(grid, LINEAR, 1).code == "zero-point-not-integer"
    assert grid.centred() is None


@settings(max_examples=40)
@given(
    seed=st.integers(0, 1 << 30),
    rows=st.sampled_from([99, 128, 7000]),
    groups=st.integers(1, 5),
    group=st.sampled_from([4, 16, 32]),
    wrong=st.booleans(),
)
def test_rows_by_the_scales_of_a_matmul_are_the_table(seed, rows, groups, group, wrong):
    """Every bit, by numbers that lie as the matmul has them; not by others, nor where as many bytes would be stored."""
    grid = _grid(seed, rows, groups, group, -8, 7, points=False)
    pack = q4_pack(grid, TIED, columns_multiple=LOOKUP_COLUMNS)
    factors = linear_scales(pack, ScalarType.FLOAT).copy()
    if wrong:
        factors[-1, rows - 1] *= 2
    made = rows_by_factors(pack, factors, TIED)
    if isinstance(made, Refusal):
        assert wrong or pack.padded_columns > pack.columns or groups * rows * 4 < (64 << 10) + rows * 2 + 64
        return
    assert not wrong
    stored = factors.reshape(-1)  # as it is gathered: a stretch of the padded rows for each group
    assert all(
        np.array_equal(made.scales[:, g], stored[g * len(pack.packed) :][: len(pack.packed)])
        for g in range(groups)
    )
    assert np.array_equal(made.rebuild(0, rows), _wanted(grid))
    assert isinstance(made, NibbleRows) == (groups > 1)


def test_scales_of_one_are_one_in_padding_too():
    """What looks integers up is told from a table by its scales, of which none is another number."""
    rows = nibble_rows(_grid(0, 127, 2, 16, -8, 7, points=True), TIED)
    assert rows.pack.scales.shape == (128, 1)
    assert (rows.pack.scales == 1).all()
