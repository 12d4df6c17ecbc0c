"""What a verdict looks like."""

import json
import math
from collections import Counter

import pytest
from rich.console import Console

from vkfuse.lint.findings import Finding
from vkfuse.measure.audit import TableCheck
from vkfuse.verify.render import dumps, render_text
from vkfuse.verify.verdict import Applied, Departure, OutputCheck, Run, Verification

_GOOD = OutputCheck(
    index=0,
    dtype="float32",
    shape=(1, 8),
    max_abs=1e-7,
    max_rel=5e-8,
    max_ulp=2,
    cosine=1,
    sqnr_db=140,
    top1=None,
    limit=1e-4,
    passed=True,
)
_BAD = OutputCheck(
    index=1,
    dtype="float32",
    shape=(2, 32),
    max_abs=math.inf,
    max_rel=math.inf,
    max_ulp=math.inf,
    cosine=0,
    sqnr_db=-math.inf,
    top1=0.5,
    limit=1e-4,
    passed=False,
)
_TABLE = TableCheck(
    operator="et_vk.linear_q4gsw.default",
    where="forward/0:1",
    shape=(8, 8),
    matches="head.weight",
    values=64,
    differing=1,
    max_abs=0.25,
    first_row=3,
)
DIFFERS = Verification(
    status="differs",
    message="output 1 differs on random 0",
    runs=(Run(label="example", outputs=(_GOOD,)), Run(label="random 0", outputs=(_GOOD, _BAD))),
    tables=(_TABLE,),
    applied=(Applied(code="linear-input-batched", summary="of an input", places=("forward/0:1",)),),
    departure=Departure(
        operator="et_vk.linear_q4gsw.default",
        where="forward/0:1",
        node="aten.linear.default",
        source="model.py:12",
        behaviours=("linear-input-batched",),
    ),
)


def _text(verification, width=150):
    console = Console(width=width, color_system=None, force_terminal=False)
    with console.capture() as capture:
        render_text(verification, console)
    return capture.get()


def test_text_says_what_departs_and_where():
    """The headline, the operator with its source line, each output, and the table's row."""
    lines = [line.strip() for line in _text(DIFFERS).splitlines()]
    assert lines[0] == "DIFFERS: the file does not compute what the program does"
    assert (
        "first operator that departs: et_vk.linear_q4gsw.default in forward/0:1; "
        "the program has aten.linear.default model.py:12" in lines
    )
    assert "the runtime there: linear-input-batched" in lines
    (row,) = [line.split() for line in lines if line.endswith("DIFFERS")]
    assert row == [
        "random",
        "0",
        "1",
        "float32[2,",
        "32]",
        "inf",
        "inf",
        "inf",
        "-inf",
        "0.000000",
        "50.0%",
        "0.0001",
        "DIFFERS",
    ]
    assert any(
        line.startswith("table head.weight in et_vk.linear_q4gsw.default") and line.endswith("row 3")
        for line in lines
    )


@pytest.mark.parametrize("width", [0, 20, 60, 80])
def test_narrow_text_is_whole(width):
    """Every character of a wide verdict is in a narrow one."""
    narrow, wide = (_text(DIFFERS, columns) for columns in (width, 400))
    assert Counter("".join(narrow.split())) == Counter("".join(wide.split()))


def test_text_of_a_pass_is_short():
    """A pass says so, with its outputs, and nothing of departures."""
    passed = Verification(
        status="same", runs=(Run(label="example", outputs=(_GOOD,), reason="gelu by tanh", eager_rel=5e-4),)
    )
    text = _text(passed)
    assert text.startswith("same: the file computes what the program does\n")
    assert "by design up to 0.0005 off eager on 1 of 1 inputs: gelu by tanh" in text
    assert "departs" not in text


def test_text_of_what_does_not_load_lists_the_findings():
    """A refused file says what is missing, and names from it cannot steer the terminal."""
    finding = Finding(
        kind="operator",
        name="torchao.x\x1b[31m",
        where="forward/0",
        code="not-registered",
        hint="keep it off",
    )
    text = _text(Verification(status="not-loadable", message="m", findings=(finding,) * 11))
    assert "and 3 more findings" in text
    assert "not-registered: torchao.x\N{REPLACEMENT CHARACTER}[31m in forward/0: keep it off" in text


def test_json_is_strict_and_complete():
    """JSON has the verdict, what is no number as a word, and every field."""
    plain = json.loads(dumps(DIFFERS), parse_constant=lambda _: 1 / 0)
    assert (plain["schema"], plain["ok"], plain["status"]) == ("vkfuse.verify/1", False, "differs")
    assert plain["runs"][1]["outputs"][1]["max_abs"] == "inf"
    assert plain["departure"]["source"] == "model.py:12"
    assert set(plain) == {"schema", "vkfuse", "ok"} | set(Verification.__dataclass_fields__)


def test_the_worst_output_is_summed_up():
    """The report's line is about the output that is furthest over its limit; an unrun verdict says why."""
    summary = DIFFERS.summary()
    assert (summary.ran, summary.ok, summary.max_abs_error) == (True, False, math.inf)
    unrun = Verification(status="cannot-verify", message="cannot verify: op").summary()
    assert (unrun.ran, unrun.ok, unrun.skipped) == (False, None, ("cannot verify: op",))
