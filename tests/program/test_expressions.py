"""Symbolic expressions: what torch's printer writes is read, anything else is refused before sympy sees it."""

import contextlib
import sys
import time

import pytest
import sympy
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._sympy import functions

from vkfuse.errors import InputError, UnsafePickleError
from vkfuse.program.expressions import check_expression, check_symbol

SYMBOLS = st.sampled_from([sympy.Symbol(f"s{n}", positive=True, integer=True) for n in (0, 7, 77)])
LEAVES = st.one_of(SYMBOLS, st.integers(1, 10**6).map(sympy.Integer))
BINARY = st.sampled_from([sympy.Add, sympy.Mul, sympy.Max, sympy.Min])
DIVISIONS = st.sampled_from([functions.FloorDiv, functions.Mod, functions.CeilDiv])


def _combined(inner):
    powers = st.builds(lambda a, n: a**n, inner, st.integers(1, 3))
    divided = st.builds(lambda f, a, b: f(a, b), DIVISIONS, inner, LEAVES)
    return st.one_of(powers, divided, st.builds(lambda f, a, b: f(a, b), BINARY, inner, inner))


PRINTED = st.recursive(LEAVES, _combined, max_leaves=6)


@settings(max_examples=300)
@given(PRINTED)
def test_what_torch_prints_is_read(expression):
    """sympy.srepr of sums, products, divisions, extrema and powers of symbols."""
    check_expression(sympy.srepr(expression), "test")


@pytest.mark.parametrize(
    "text",
    [
        "Mul(Float('1.5', precision=53), ToFloat(Symbol('s27', positive=True, integer=True)))",
        "LessThan(Symbol('u1', integer=True), Symbol('s27', positive=True, integer=True))",
        "Rational(-1, 2)",
        "And(GreaterThan(Symbol('u0', integer=True), Integer(0)), true)",
        "s0 + 3*s1//2",
        "FloatPow(ToFloat(Symbol('s21', positive=True, integer=True)), Float('-0.5', precision=53))",
    ],
)
def test_other_forms_that_torch_writes_are_read(text):
    """As seen in exported programs."""
    check_expression(text, "test")


HUGE = [
    "9**9**9**9",
    "Pow(Integer(9), Pow(Integer(9), Integer(99)))",
    "Pow(Symbol('s0'), Integer(10000000))",
    "Pow(Integer(2), Symbol('s0'))",
    "FloatPow(ToFloat(Symbol('s0')), Float('99.5', precision=53))",
    "FloatPow(ToFloat(Symbol('s0')), Float('0.5', precision=99999999))",
    "(9**64)**64",
    "LShift(Integer(1), Integer(99999999999))",
    "1 << 99999999",
    "Mul(" + ", ".join(["Integer(9999999999)"] * 400) + ")",
]
ODD = [
    "__import__('os')",
    "s0.__class__",
    "Symbol('x').is_real",
    "[x for x in ()]",
    "lambda: 0",
    "f'{1}'",
    "factorial(9)",
    "Integer('9'*10)",
    "Symbol('s0', **{})",
    "Symbol(*['s0'])",
    "Add(*s0)",
    "Symbol('s0', real=lambda: 0)",
    "Symbol('a b')",
    "test",
    "S",
    "os",
    "s0 if s0 else s1",
    "s0[0]",
    "(s0 := 1)",
    "",
    "(" * 4000 + "1" + ")" * 4000,
]


@pytest.mark.parametrize("text", HUGE)
def test_numbers_beyond_all_bounds_are_refused(text):
    """Before anything computes them."""
    start = time.perf_counter()
    with pytest.raises(InputError, match="bits"):
        check_expression(text, "test")
    assert time.perf_counter() - start < 1


@pytest.mark.parametrize("text", ODD)
def test_anything_else_is_refused(text):
    """Attributes, unlisted names, comprehensions, formatted strings, unpacking."""
    with pytest.raises(UnsafePickleError, match="no plain symbolic expression"):
        check_expression(text, "test")


def test_symbols_that_torch_counts_to():
    """`u99999999999` would be counted to, one by one."""
    check_symbol("u12", "test")
    with pytest.raises(InputError):
        check_symbol("u99999999999", "test")


@settings(max_examples=1000)
@given(st.text(alphabet="s01.()*,'=_ [ft]{}:x-/+<", max_size=30))
def test_any_text_gives_an_answer(text):
    """A verdict, nothing else, whatever the text."""
    limit = sys.getrecursionlimit()
    with contextlib.suppress(InputError):
        check_expression(text, "test")
    assert sys.getrecursionlimit() == limit
