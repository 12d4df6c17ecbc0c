"""Bounds of sizes, and the arithmetic that computes them."""

import operator

import sympy
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import fx
from torch.utils._sympy.functions import FloorDiv
from torch.utils._sympy.value_ranges import ValueRanges

from vkfuse.lower.sizes import bounded, in_known_arithmetic

N = sympy.Symbol("n", integer=True, positive=True)
M = sympy.Symbol("m", integer=True, positive=True)
MOST = {N: ValueRanges(2, 32), M: ValueRanges(1, 7)}
_sizes = st.recursive(
    st.sampled_from([N, M, sympy.Integer(3), sympy.Integer(4)]),
    lambda of: (
        st.builds(operator.mul, of, of)
        | st.builds(operator.add, of, of)
        | st.builds(FloorDiv, of, of.filter(lambda by: not by.is_zero))
    ),
    max_leaves=5,
)


def test_what_is_divided_again_has_its_own_bound():
    """N * n // n is n, also within another quotient; what leaves something is rounded down."""
    square = FloorDiv(N * N, N)
    exact = {square: 32, FloorDiv(N * N, square): 32, FloorDiv(2 * N * M, 2 * N): 7, 4 * square + 1: 129}
    rounded = {FloorDiv(N + 3, 4): 8, FloorDiv(2 * N + 3, 4): 16, FloorDiv(N, 3): 10}
    assert {size: bounded(size, MOST).upper for size in exact | rounded} == exact | rounded


@given(_sizes, st.integers(2, 32), st.integers(1, 7))
def test_bounds_hold(size, long, short):
    """No size is beyond its bound, where each quotient is by one that is not zero."""
    try:
        value = size.xreplace({N: sympy.Integer(long), M: sympy.Integer(short)})
        upper = bounded(size, MOST).upper
    except ZeroDivisionError:
        return
    assert value <= upper


def test_arithmetic_that_is_emitted():
    """Powers are products, and sums of several are sums of two."""
    graph = fx.Graph()
    length = graph.placeholder("length")
    length.meta["val"] = 5
    cube = graph.call_function(operator.pow, (length, 3))
    cube.meta["val"] = 125
    graph.output(graph.call_function(torch.sym_sum, ([cube, length, 4],)))
    in_known_arithmetic(graph)
    assert {node.target for node in graph.nodes if node.op == "call_function"} == {operator.mul, operator.add}
    graph.lint()
    assert fx.GraphModule({}, graph)(5) == 134
