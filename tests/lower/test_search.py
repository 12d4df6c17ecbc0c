"""Bisection for what makes an attempt fail."""

from math import ceil, log2

from hypothesis import given
from hypothesis import strategies as st

from vkfuse.lower.loadable import culprits


@given(
    st.integers(1, 200).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1), max_size=5)))
)
def test_just_the_culprits_are_found(case):
    """Any set of candidates that must all be left out is found, in about log2(n) attempts each."""
    count, guilty = case
    attempts = []

    def works_without(left_out):
        attempts.append(left_out)
        return guilty <= left_out

    assert culprits(range(count), works_without) == guilty
    assert len(attempts) <= 2 + len(guilty) * (ceil(log2(count)) + 1)


def test_what_fails_anyway_has_no_culprit():
    """Where leaving out everything does not help, nothing is blamed."""
    assert culprits("abc", lambda left_out: len(left_out) > 3) is None
