"""A grid is had back from the floats alone: every bit, or a refusal that says how close it came."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp

from vkfuse.pte.enums import ScalarType
from vkfuse.tables.floats import rounded
from vkfuse.tables.found import NoGrid, find_grid
from vkfuse.tables.grid import Grid
from vkfuse.tables.proof import difference
from vkfuse.tables.q4 import LOOKUP_COLUMNS, q4_pack
from vkfuse.tables.readers import Consumer, Readers

KINDS = (ScalarType.FLOAT, ScalarType.HALF, ScalarType.BFLOAT16)
LOOKED_UP = Readers(consumers=frozenset({Consumer.GATHER}))


def _found(floats, kind=ScalarType.FLOAT):
    return find_grid(lambda low, high: floats[low:high], *floats.shape, kind)


def _table(integers, scales, kind):
    """``float(integer) * scale``, one scale for as many columns as there are."""
    rows, groups = scales.shape
    products = integers.reshape(rows, groups, -1).astype(np.float32) * scales[:, :, None].astype(np.float32)
    return rounded(products.reshape(rows, -1), kind)


@st.composite
def tables(draw, bits=4):
    """A table of a grid: its type, the size of its groups, its floats."""
    kind = draw(st.sampled_from(KINDS))
    rows, groups, group = draw(
        st.tuples(st.integers(1, 5), st.integers(1, 4), st.sampled_from([4, 8, 12, 16, 32]))
    )
    most = 1 << (bits - 1)
    integers = draw(hnp.arrays(np.int8, (rows, groups * group), elements=st.integers(-most, most - 1)))
    sizes = st.floats(2**-10, 4, width=32) | st.floats(2**-10, 4, width=16)
    scales = draw(hnp.arrays(np.float32, (rows, groups), elements=sizes))
    signs = draw(hnp.arrays(np.float32, (rows, groups), elements=st.sampled_from([1, 1, 1, -1])))
    scales = rounded(scales * signs, draw(st.sampled_from([kind, ScalarType.FLOAT])))
    return kind, group, _table(integers, scales, kind)


@settings(max_examples=200)
@given(tables())
def test_every_4_bit_grid_is_had_back(drawn):
    """Floats of any group size, type, sign and type of scale come back bit for bit from a pack made of what was found."""
    kind, group, floats = drawn
    grid = _found(floats, kind)
    assert isinstance(grid, Grid)
    assert grid.group_size >= group
    assert grid.bits <= 4
    pack = q4_pack(grid, LOOKED_UP, columns_multiple=LOOKUP_COLUMNS)
    found = difference(lambda low, high: floats[low:high], pack.rebuild, *floats.shape)
    assert found.exact


@settings(max_examples=60)
@given(st.data())
def test_8_bit_grids_are_had_back(data):
    """The same of eight bits and float32, by rows of a byte a weight."""
    rows, group = data.draw(st.tuples(st.integers(1, 4), st.sampled_from([16, 48])))
    integers = data.draw(hnp.arrays(np.int8, (rows, group * 2)))
    scales = data.draw(hnp.arrays(np.float32, (rows, 2), elements=st.floats(2**-10, 4, width=32)))
    floats = _table(integers, scales, ScalarType.FLOAT)
    grid = _found(floats)
    assert isinstance(grid, Grid)
    assert difference(lambda low, high: floats[low:high], grid.rebuild, *floats.shape).exact


def _random(rows=3000, columns=96, group=32, seed=0):
    """A table as torchao quantizes it: symmetric, the scale from the largest magnitude."""
    weights = np.random.default_rng(seed).standard_normal((rows, columns)).astype(np.float32)
    grouped = weights.reshape(rows, -1, group)
    scales = (np.abs(grouped).max(axis=2) / np.float32(7.5)).astype(np.float32)
    integers = np.clip(np.rint(grouped / scales[:, :, None]), -8, 7).astype(np.int8).reshape(rows, columns)
    return integers, scales


def test_the_grid_is_the_one_that_made_the_table():
    """Integers, scales and group size are those that the table was made of, rows without any value too."""
    integers, scales = _random()
    integers[7] = 0
    grid = _found(_table(integers, scales, ScalarType.FLOAT))
    assert (grid.group_size, grid.quant_min, grid.quant_max) == (32, -8, 7)
    assert np.array_equal(grid.values, integers)
    keeps = np.arange(len(scales)) != 7
    assert np.array_equal(grid.scales[keeps], scales[keeps])


@pytest.mark.parametrize("row", [0, 1501, 2999])
def test_one_value_that_is_off_refuses_the_table(row):
    """One unit in the last place of one value: refused, with the groups that are exact and how far the other is off."""
    floats = _table(*_random(), ScalarType.FLOAT)
    floats[row, 40] = np.nextafter(floats[row, 40], np.float32(9))
    near = _found(floats)
    assert isinstance(near, NoGrid)
    assert near.bits == 4
    assert 0 < near.off < 1e-5
    assert near.exact == near.groups - 1
    assert near.refusal().code == "not-exact"
    assert f"{near.exact} of {near.groups} groups" in near.refusal().detail


@pytest.mark.parametrize(
    "change", [lambda f: f * np.float32(1.1), lambda f: f + np.float32(1e-3)], ids=["scaled", "moved"]
)
def test_arithmetic_after_the_grid_refuses_the_table(change):
    """A table that was multiplied or moved after dequantizing is on no grid, and the refusal says so near it is."""
    near = _found(change(_table(*_random(), ScalarType.FLOAT)))
    assert isinstance(near, NoGrid)
    assert near.off < 0.5


def test_zeros_of_both_signs_refuse_the_table():
    """No scale gives zeros of both signs, and the refusal says that nothing else is wrong."""
    floats = _table(*_random(), ScalarType.FLOAT)
    floats.flat[np.flatnonzero(floats == 0)[0]] = -0.0
    near = _found(floats)
    assert (near.off, near.exact) == (0, near.groups - 1)
    assert "sign of zeros" in near.refusal().detail


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.label)
def test_random_floats_are_on_no_grid(kind):
    """Weights that nobody quantized are refused, each type of them, as are those with a value that is no number."""
    weights = rounded(np.random.default_rng(1).standard_normal((500, 64)).astype(np.float32), kind)
    assert isinstance(_found(weights, kind), NoGrid)
    floats = rounded(_table(*_random(), kind), kind).copy()
    floats[5, 5] = np.nan
    assert isinstance(_found(floats, kind), NoGrid)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.label)
def test_a_few_groups_show_that_floats_are_on_no_grid(kind):
    """The search ends with one row of each width of integers; in halves it tried 512 divisors for each size of group."""
    floats = rounded(np.random.default_rng(0).standard_normal((64, 4096)).astype(np.float32), kind)
    asked = []

    def read(low, high):
        asked.append((low, high))
        return floats[low:high]

    assert isinstance(find_grid(read, *floats.shape, kind), NoGrid)
    assert len(asked) <= 3 * 2
    assert all(high - low == 1 for low, high in asked)


def test_tables_of_nothing():
    """A table of zeros is on a grid, of negative ones too; one without rows or of another type is on none."""
    for zeros in (np.zeros((3, 32), np.float32), -np.zeros((3, 32), np.float32)):
        grid = _found(zeros)
        pack = q4_pack(grid, LOOKED_UP, columns_multiple=LOOKUP_COLUMNS)
        assert difference(lambda low, high, of=zeros: of[low:high], pack.rebuild, 3, 32).exact
    assert isinstance(_found(np.zeros((0, 32), np.float32)), NoGrid)
    assert isinstance(_found(np.zeros((3, 32)), ScalarType.DOUBLE), NoGrid)
