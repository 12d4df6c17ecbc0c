"""Packings, against their definition element by element; and the shader's arithmetic that the GPU cannot show wrong."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from vkfuse.glsl.check import embedding
from vkfuse.glsl.layouts import index_texels, numpy_type, pack_flat, pack_linear, padded_bytes
from vkfuse.glsl.variants import ROWS_PER_BLOCK, DType
from vkfuse.glsl.workload import Shape, random_rows


@st.composite
def tables(draw):
    """Values -8..7 of shape [V, D]."""
    shape = draw(st.integers(1, 20)), 32 * draw(st.integers(1, 3))
    return np.random.default_rng(draw(st.integers(0, 1 << 30))).integers(-8, 8, shape, np.int8)


@given(tables())
def test_flat_is_two_columns_a_byte_high_nibble_first(values):
    """Byte b of a row holds columns 2b (high nibble) and 2b + 1 (low)."""
    data = pack_flat(values).view(np.uint8).reshape(len(values), -1)
    assert np.array_equal((data >> 4).astype(np.int8) - 8, values[:, 0::2])
    assert np.array_equal((data & 15).astype(np.int8) - 8, values[:, 1::2])


@given(tables())
def test_linear_is_blocks_of_eight_rows(values):
    """Byte j of word r of block (n, k) holds column 4k + j: of row 8n + r (low nibble) and of row 8n + r + 4 (high)."""
    blocks = pack_linear(values)
    rows, columns = values.shape
    data = blocks.view(np.uint8).reshape(*blocks.shape, 4)
    for row, column in [(0, 0), (rows - 1, columns - 1), (rows // 2, 33 % columns), (min(rows - 1, 5), 2)]:
        byte = data[row // 8, column // 4, row % 4, column % 4]
        nibble = byte >> 4 if row % 8 >= 4 else byte & 15
        assert int(nibble) - 8 == values[row, column]
    assert blocks.shape == (-(-rows // 8), columns // 4, 4)


@given(st.lists(st.integers(0, 9), max_size=3).map(tuple))
def test_index_texels_are_width_packed(shape):
    """Index (n, c, w) is component w % 4 of texel (w / 4, c, n)."""
    indices = np.arange(np.prod(shape, dtype=int), dtype=np.int32).reshape(shape)
    texels = index_texels(indices)
    padded = (1,) * (3 - len(shape)) + shape
    for n, c, w in np.ndindex(padded):
        assert texels[n, c, w // 4, w % 4] == indices.reshape(padded)[n, c, w]


@given(st.integers(0, 70))
def test_buffers_are_whole_texels(size):
    """A buffer is what it holds, filled up to 16 bytes with ones, as the runtime allocates it."""
    padded = padded_bytes(np.zeros(size, np.uint8))
    assert padded.size % 16 == 0
    assert padded.size >= 16
    assert not padded[:size].any()
    assert (padded[size:] == 0xFF).all()


@given(rows=st.integers(1, 300), groups=st.integers(1, 70), dtype=st.sampled_from(DType))
def test_scales_tell_the_rows_of_a_linear_weight(rows, groups, dtype):
    """The shader takes as many rows as the buffer of scales has: all of the table, and never more than its blocks."""
    scales = padded_bytes(np.zeros((rows, groups), numpy_type(dtype))).size // dtype.nbytes
    assert rows <= scales // groups <= -(-rows // ROWS_PER_BLOCK) * ROWS_PER_BLOCK


@given(tokens=st.integers(1, 70), neighbours=st.integers(1, 9), seed=st.integers(0, 99))
def test_neighbours_are_of_blocks_that_follow_each_other(tokens, neighbours, seed):
    """Runs of rows start at a multiple of their length in blocks, and each row is one block further."""
    shape = Shape(tokens=tokens, embed_dim=32, vocab=1000, group_size=32, neighbours=neighbours)
    rows = random_rows(shape, np.random.default_rng(seed))
    assert rows.shape == (tokens,)
    assert 0 <= rows.min() <= rows.max() < 1000
    if neighbours > 1:
        assert np.array_equal(rows // 8 % neighbours, np.arange(tokens) % neighbours)


def test_reference_is_the_definition():
    """Each element is value times scale of its group in float32, and a half is that float's nearest half."""
    rng = np.random.default_rng(0)
    values, scales = rng.integers(-8, 8, (5, 32), np.int8), rng.standard_normal((5, 8)).astype(np.float32)
    indices = np.array([[4, 0], [-1, 5]], np.int32)
    out = embedding(values, scales, 4, indices, DType.FLOAT)
    half = embedding(values, scales, 4, indices, DType.HALF)
    for column in range(32):
        assert out[0, 0, column] == np.float32(values[4, column]) * scales[4, column // 4]
        assert half[0, 1, column] == np.float16(np.float32(values[0, column]) * scales[0, column // 4])
    assert not out[1].any()


@settings(max_examples=200)
@given(
    size=st.integers(1, 1 << 14),
    quotient=st.integers(0, 1 << 20),
    ulps=st.integers(-3, 3),
    last=st.booleans(),
)
def test_quotients_of_floats_are_exact(size, quotient, ulps, last):
    """`quotient()` of the shader is exact below 2^20 with the worst reciprocal that Vulkan allows (2.5 ulp)."""
    at = quotient * size + (size - 1 if last else 0)
    if at >= 1 << 20:
        at = (at % (1 << 20)) // size * size
    reciprocal = np.float32(1) / np.float32(size)
    reciprocal = np.float32(reciprocal + ulps * np.spacing(reciprocal))
    assert int((np.float32(at) + np.float32(0.5)) * reciprocal) == at // size


@given(st.integers(0, 0xFFFFFFFF))
def test_rounding_to_half_is_numpys(bits):
    """`round_to_output()` of the shader, in numpy: nearest half, ties to even, subnormals too, below the largest half."""
    value = np.array([bits], np.uint32).view(np.float32)
    if not np.isfinite(value) or abs(value) >= 65504:
        return
    shifted = value.view(np.uint32)
    normal = ((shifted + np.uint32(0xFFF) + (shifted >> 13 & 1)) & np.uint32(0xFFFFE000)).view(np.float32)
    subnormal = np.round(value * np.float32(2**24)) * np.float32(2**-24)
    rounded = np.where(abs(value) < 2.0**-14, subnormal, normal)
    assert rounded.astype(np.float16).view(np.uint16) == value.astype(np.float16).view(np.uint16)
    assert rounded.astype(np.float16).astype(np.float32) == rounded
