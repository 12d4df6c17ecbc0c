"""Tables that CPU kernels dequantize are read from a file's constants as the kernels read them."""

import hypothesis.strategies as st
import numpy as np
import torch
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp

from vkfuse.measure.kernel_tables import kernel_table
from vkfuse.measure.tables import ConstantTensor, TableRead
from vkfuse.program.operators import register_operators
from vkfuse.program.tensors import array, scalar_type
from vkfuse.pte.place import Place
from vkfuse.runtime.kernels import KERNELS

KINDS = {"embedding_byte": 8, "embedding_4bit": 4, "embedding_2bit": 2}


def _constant(value):
    data = memoryview(value.contiguous().view(torch.uint8).numpy().tobytes())
    return ConstantTensor(
        name="c",
        shown="c",
        dtype=scalar_type(value.dtype),
        dims=tuple(value.shape),
        nbytes=len(data),
        data=data,
    )


def _read(name, weight, scales, points=None):
    """A call of the kernel, as the survey of a file reads it."""
    return TableRead(
        where=Place("forward", call=0),
        operator=f"quantized_decomposed::{name}.out",
        reader=KERNELS[f"quantized_decomposed::{name}"].table,
        weight=_constant(weight),
        scales=_constant(scales),
        also=() if points is None else (_constant(points),),
        group=None,
        low_first=None,
        indices=None,
        output=0,
    )


@st.composite
def calls(draw):
    """A kernel with a table of any bytes: scales a row or a group, float or half, with and without zero points."""
    name = draw(st.sampled_from(sorted(KINDS)))
    rows, groups, group = draw(st.tuples(st.integers(1, 5), st.integers(1, 3), st.sampled_from([4, 8, 12])))
    byte = st.sampled_from([np.uint8, np.int8]) if KINDS[name] == 8 else st.just(np.uint8)
    weight = draw(hnp.arrays(draw(byte), (rows, groups * group * KINDS[name] // 8)))
    shape = (rows,) if groups == 1 and draw(st.booleans()) else (rows, groups)
    dtype = draw(st.sampled_from([torch.float32, torch.float16]))
    scales = draw(hnp.arrays(np.float32, shape, elements=st.floats(0.125, 2, width=16)))
    points = draw(st.none() | hnp.arrays(np.float32, shape, elements=st.integers(-9, 9)))
    return (
        name,
        torch.from_numpy(weight),
        torch.from_numpy(scales).to(dtype),
        None if points is None else torch.from_numpy(points).to(dtype),
    )


@settings(max_examples=150)
@given(calls())
def test_rows_are_the_kernels(call):
    """The rows and the grid that is read are those of the operator that ExecuTorch defines, bit for bit."""
    register_operators()
    name, weight, scales, points = call
    bits = KINDS[name]
    lookup = getattr(torch.ops.quantized_decomposed, name).dtype
    low = -(1 << (bits - 1))
    everything = torch.arange(len(weight))
    wanted = lookup(weight, scales, points, low, -low - 1, everything, dtype=scales.dtype)
    table = kernel_table(_read(name, weight, scales, points))
    assert table.shape == tuple(wanted.shape)
    assert table.kind == scalar_type(wanted.dtype)
    assert np.array_equal(table.rows(0, len(weight)), array(wanted))
    assert np.array_equal(table.grid().rebuild(0, len(weight)), array(wanted))
    assert table.grid().bits == bits


def test_parts_that_make_no_table():
    """Scales of too few rows or groups that divide nothing, weights of another type: no table, no error."""
    weight = torch.zeros(4, 8, dtype=torch.uint8)
    for scales in (
        torch.ones(3),
        torch.ones(4, 5),
        torch.ones(4, 0),
        torch.ones(4, 2, 2),
        torch.ones(4).int(),
    ):
        assert kernel_table(_read("embedding_4bit", weight, scales)) is None
    assert kernel_table(_read("embedding_4bit", weight.to(torch.int8), torch.ones(4))) is None
    assert kernel_table(_read("embedding_4bit", weight, torch.ones(4), torch.ones(4, 2))) is None
    assert kernel_table(_read("embedding_byte", weight[0], torch.ones(4))) is None
