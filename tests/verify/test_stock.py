"""What ExecuTorch lowers by itself: right files pass, wrong ones are found out by name, others do not load."""

import pytest
import stock

from vkfuse.pte import parse_pte
from vkfuse.verify.compare import Tolerance
from vkfuse.verify.verify import VerifyOptions, verify_file

_STATUS = {"right": "same", "wrong": "differs", "not-loadable": "not-loadable"}


@pytest.mark.parametrize("case", stock.CASES, ids=lambda case: case.name)
def test_verdict_is_the_devices(case, lowered):
    """The verdict is what the real runtime, 1.5.0, did with the file; the operator to blame is named."""
    file = lowered(case.name)
    options = VerifyOptions(seeds=1, runtime="1.5.0")
    verdict = verify_file(parse_pte(file.data), file.exported, options)
    assert verdict.status == _STATUS[case.expected], verdict.message
    assert verdict.ok == (case.expected == "right")
    if case.expected == "wrong":
        assert verdict.departure is not None
        assert verdict.departure.operator == case.operator
        assert verdict.departure.source or case.operator == "copy"
        assert not case.code or case.code in verdict.departure.behaviours
    if case.expected == "not-loadable" and case.operator:
        assert case.operator in {finding.name for finding in verdict.findings}
    if case.expected == "not-loadable" and case.code:
        assert case.code in {finding.code for finding in verdict.findings}


def test_known_wrong_reading_is_named(lowered):
    """A file with two rows of indices says which behaviour of the runtime made it wrong, and where."""
    file = lowered("lookup-two-rows")
    verdict = verify_file(parse_pte(file.data), file.exported, VerifyOptions(seeds=0))
    assert verdict.departure is not None
    assert verdict.departure.behaviours == ("indices-more-than-one-row",)
    assert {applied.code for applied in verdict.applied} == {"indices-more-than-one-row"}


@pytest.mark.parametrize(("name", "reason"), [("8da4w-one-row", "single row"), ("gelu", "tanh")])
def test_other_arithmetic_passes_with_its_reason(name, reason, lowered):
    """What the runtime computes otherwise by design passes, says why, and how far it is off eager."""
    file = lowered(name)
    verdict = verify_file(parse_pte(file.data), file.exported, VerifyOptions(seeds=1))
    assert verdict.ok
    reasons = [run for run in verdict.runs if run.reason]
    assert reasons
    assert all(reason in run.reason and run.eager_rel > 1e-4 for run in reasons)
    assert verdict.worst.max_rel < 1e-5


def test_exact_file_is_exact(lowered):
    """A lookup that the runtime computes bit for bit has error zero on all inputs, and its table is read whole."""
    file = lowered("lookup-dynamic")
    verdict = verify_file(parse_pte(file.data), file.exported)
    assert verdict.worst.max_abs == 0
    assert {run.label for run in verdict.runs} >= {"example", "first and last rows", "shortest", "longest"}
    assert [table.differing for table in verdict.tables] == [0]
    assert verdict.tables[0].values == 6400
    summary = verdict.summary()
    assert (summary.ran, summary.ok, summary.max_abs_error) == (True, True, 0.0)


def test_given_tolerance_decides(lowered):
    """A tolerance by the user replaces the built-in ones, in both directions."""
    file = lowered("linear-rows")
    loose = VerifyOptions(seeds=0, tolerance=Tolerance(atol=1e9))
    assert verify_file(parse_pte(file.data), file.exported, loose).ok
    wrong = lowered("lookup-two-rows")
    assert verify_file(parse_pte(wrong.data), wrong.exported, loose).status == "same"
    strict = VerifyOptions(seeds=0, tolerance=Tolerance(atol=0.0, rtol=0.0))
    assert verify_file(parse_pte(wrong.data), wrong.exported, strict).status == "differs"
