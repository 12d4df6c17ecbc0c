"""Packs rebuilt equal the table they were made of, for any table."""

import dataclasses

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp

from vkfuse.measure import stored
from vkfuse.options import LookupLayout
from vkfuse.program.operators import register_operators
from vkfuse.program.tensors import tensor
from vkfuse.pte.enums import ScalarType
from vkfuse.tables.decisions import Refusal
from vkfuse.tables.floats import halves
from vkfuse.tables.grid import Grid
from vkfuse.tables.groups import pad, padded_group, regroup, row_bytes
from vkfuse.tables.nibbles import fits, pack, unpack
from vkfuse.tables.q4 import LINEAR_COLUMNS, LOOKUP_COLUMNS, group_sums, q4_pack
from vkfuse.tables.readers import Consumer, Readers
from vkfuse.verify.vulkan.embedding import unpack_nibbles

NIBBLES = st.integers(-8, 7)
TABLE = Readers(consumers=frozenset({Consumer.GATHER}))
FLAT = dataclasses.replace(TABLE, layout=LookupLayout.FLAT)
SHARED = dataclasses.replace(FLAT, consumers=frozenset({Consumer.GATHER, Consumer.MATMUL}))
SHAPES = st.tuples(
    st.integers(1, 9), st.integers(1, 12), st.integers(1, 40)
)  # rows, groups, columns of a group


@st.composite
def matrices(draw):
    """Values of 4 bits, an even number of columns."""
    rows, half = draw(st.tuples(st.integers(0, 9), st.integers(1, 40)))
    return draw(hnp.arrays(np.int8, (rows, 2 * half), elements=NIBBLES))


@given(
    hnp.arrays(
        np.float32, st.integers(0, 30), elements=st.floats(width=16, allow_nan=False, allow_infinity=False)
    )
)
def test_halves_keep_every_value_or_are_none(values):
    """What becomes float16 is what it was; a value between two halves, or below the normal ones, keeps four bytes each."""
    subnormal = bool(((values != 0) & (np.abs(values) < 2.0**-14)).any())
    half = halves(values)
    assert (half is None) == subnormal
    assert half is None or (half.dtype == np.float16 and np.array_equal(half.astype(np.float32), values))
    assert halves(np.append(values, np.float32(1 + 2.0**-11))) is None
    assert halves(np.append(values, np.float32(65520))) is None


@given(matrices(), st.booleans())
def test_nibbles_round_trip(values, low_first):
    """The even column is the nibble that is said, the odd one the other, each plus 8; unpacking gives the values back."""
    packed = pack(values, low_first=low_first)
    assert packed.dtype == np.uint8
    assert np.array_equal(unpack(packed, low_first=low_first), values)
    even, odd = (packed & 15, packed >> 4)[:: 1 if low_first else -1]
    assert np.array_equal(even, values[:, 0::2] + 8)
    assert np.array_equal(odd, values[:, 1::2] + 8)


@pytest.mark.parametrize("low_first", [True, False])
def test_all_that_read_nibbles_agree_on_every_byte(low_first):
    """What packs, proves and verifies has code of its own; each reads the two numbers of a byte, less 8, in its order."""
    read = {byte: (byte % 16 - 8, byte // 16 - 8)[:: 1 if low_first else -1] for byte in range(256)}
    packed = np.arange(256, dtype=np.uint8).reshape(16, 16).T  # not contiguous
    wanted = np.array([[value for byte in row for value in read[int(byte)]] for row in packed])
    assert np.array_equal(pack(wanted, low_first=low_first), packed)
    assert np.array_equal(unpack(packed, low_first=low_first), wanted)
    assert np.array_equal(stored._nibbles(packed, low_first=low_first), wanted)
    floats = unpack_nibbles(tensor(packed), low_first=low_first)
    assert floats.dtype is torch.float32
    assert np.array_equal(floats.numpy(), wanted)


@given(
    hnp.arrays(np.int16, hnp.array_shapes(min_dims=1, max_dims=2, min_side=0), elements=st.integers(-40, 40))
)
def test_fits_says_what_numpy_says(values):
    """Whether all values lie in -8..7, empty tensors too."""
    assert fits(values) == bool(((values >= -8) & (values <= 7)).all())


@st.composite
def grids(draw):
    """A grid of random values, scales of either sign in either dtype, zero points that keep the values in range."""
    rows, groups, group = draw(SHAPES)
    points = draw(hnp.arrays(np.int8, (rows, groups), elements=st.integers(-3, 3)))
    centred = draw(hnp.arrays(np.int8, (rows, groups * group), elements=NIBBLES))
    dtype = draw(st.sampled_from([np.float16, np.float32]))
    scales = hnp.arrays(dtype, (rows, groups), elements=st.floats(-4, 4, width=16))
    return Grid(
        values=centred + points.repeat(group, axis=1),
        scales=draw(scales),
        zero_points=points,
        group_size=group,
        quant_min=-8,
        quant_max=7,
        dtype=ScalarType.FLOAT,
    )


def _floats(grid):
    """The table by its definition: (value - zero point) * scale."""
    values = grid.values.astype(np.float32)
    points = grid.zero_points.repeat(grid.group_size, axis=1)
    scales = grid.scales.astype(np.float32).repeat(grid.group_size, axis=1)
    return (values - points) * scales


@settings(max_examples=150)
@given(grids(), st.sampled_from([LOOKUP_COLUMNS, LINEAR_COLUMNS]), st.sampled_from([TABLE, FLAT, SHARED]))
def test_pack_rebuilds_the_table(grid, multiple, table):
    """The rows that the pack stands for are the table's, whatever was padded, split or folded; the shader can read it."""
    made = q4_pack(grid, table, columns_multiple=multiple)
    if isinstance(made, Refusal):
        assert made.code == "group-not-multiple-of-4"
        return
    floats = _floats(grid).view(np.int32)  # so that zero and minus zero differ
    for low in (0, grid.rows - 1):
        assert np.array_equal(made.rebuild(low, grid.rows).view(np.int32), floats[low:])
    assert made.padded_columns % multiple == 0
    assert made.group_size % 4 == 0
    assert made.scales.shape == (made.padded_rows, made.padded_columns // made.group_size)


@settings(max_examples=40)
@given(grids(), st.sampled_from([TABLE, FLAT, SHARED]), st.data())
def test_upstreams_lookup_reads_the_pack(grid, table, data):
    """ExecuTorch's own definition of the operator gives the table's rows, in the layout that the pack says."""
    register_operators()
    made = q4_pack(grid, table, columns_multiple=LOOKUP_COLUMNS)
    if isinstance(made, Refusal):
        return
    rows = data.draw(st.lists(st.integers(0, grid.rows - 1), min_size=1, max_size=5))
    lookup = torch.ops.et_vk.embedding_q4gsw.default
    got = lookup(
        tensor(made.packed),
        tensor(made.scales).float(),
        made.group_size,
        torch.tensor(rows),
        made.is_linear_weight,
    )
    assert made.is_linear_weight == (table is not FLAT)
    assert np.array_equal(got[:, : grid.columns].numpy(), _floats(grid)[rows])


@given(grids())
def test_group_sums_are_sums_of_groups(grid):
    """Each group's weights add up to its sum; padded rows add nothing."""
    made = q4_pack(grid, SHARED, columns_multiple=LINEAR_COLUMNS)
    if isinstance(made, Refusal):
        return
    values = unpack(made.packed).astype(np.int32)
    values[made.rows :] = 0
    starts = range(0, made.padded_columns, made.group_size)
    expected = [values[:, start : start + made.group_size].sum(axis=1) for start in starts]
    assert np.array_equal(group_sums(made), np.stack(expected))


@given(st.integers(1, 48), st.integers(1, 12), st.sampled_from([LINEAR_COLUMNS, LOOKUP_COLUMNS]))
def test_no_other_grouping_is_smaller(group, groups, multiple):
    """Tried against every padded width up to the one that repeats: nothing takes fewer bytes, or nothing is possible."""
    columns = group * groups
    shortest = -(-columns // multiple) * multiple
    possible = [
        row_bytes(new, padded)
        for padded in range(shortest, shortest + group * multiple + 1, multiple)
        for new in range(4, padded + 1, 4)
        if padded % new == 0 and (group % new == 0 or groups == 1)
    ]
    best = padded_group(group, columns, multiple)
    assert (best is None) == (not possible)
    if best is not None:
        new, padded = best
        assert row_bytes(new, padded) == min(possible)
        assert padded % multiple == padded % new == new % 4 == 0
        assert group % new == 0 or groups == 1


@given(grids(), st.data())
def test_regrouped_scales_stand_over_the_same_columns(grid, data):
    """Column for column the scale is what it was; the padding repeats the last."""
    divisors = [d for d in range(1, grid.group_size + 1) if grid.group_size % d == 0]
    new = data.draw(st.sampled_from(divisors))
    padded = grid.columns + new * data.draw(st.integers(0, 3))
    again = regroup(grid.scales, grid.group_size, new, padded).repeat(new, axis=1)
    before = grid.scales.repeat(grid.group_size, axis=1)
    assert again.shape == (grid.rows, padded)
    assert np.array_equal(again[:, : grid.columns], before)
    assert np.array_equal(again[:, grid.columns :], before[:, -1:].repeat(padded - grid.columns, axis=1))


@pytest.mark.parametrize(("rows", "columns"), [(3, 5), (4, 5), (3, 8), (6, 9)])
def test_padding_adds_zeros_only(rows, columns):
    """The matrix stands at the top left of zeros."""
    padded = pad(np.ones((3, 5)), rows, columns)
    assert padded.shape == (rows, columns)
    assert padded.sum() == padded[:3, :5].sum() == 15
