"""Rules that were measured on a real runtime: tests/measured_calls.py."""

import pytest
from measured_calls import CALLS, operands

from vkfuse.runtime.operators import record_of


@pytest.mark.parametrize("at", range(len(CALLS)))
def test_measured(at):
    """The first objection of the operator's rules, none where the runtime is right."""
    call, code = CALLS[at]
    ops = operands(*call)
    found = [objection.code.value for rule in record_of(ops.operator).rules for objection in rule(ops)]
    assert found[:1] == ([code] if code else [])
