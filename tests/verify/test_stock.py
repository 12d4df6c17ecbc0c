"""What ExecuTorch lowers by itself: right files pass, wrong ones are found out by name, others do not load."""

import json
import random
from io import BytesIO
from pathlib import Path

import pytest
import stock
import torch
from torchao.quantization import Int8WeightOnlyConfig, quantize_
from typer.testing import CliRunner

import vkfuse
from vkfuse.cli import app
from vkfuse.errors import LoweringError, VkfuseError
from vkfuse.options import VulkanOptions
from vkfuse.patch.edit import edited
from vkfuse.patch.mends import mended
from vkfuse.patch.plan import packs_of, plan
from vkfuse.pte import parse_pte
from vkfuse.pte.writer import write_pte
from vkfuse.runtime.versions import find_runtime
from vkfuse.verify.compare import Tolerance
from vkfuse.verify.verify import VerifyOptions, verify_file

RUNTIME = find_runtime("1.5.0")
RECORD = json.loads((Path(__file__).parents[1] / "patch" / "mended.json").read_text("utf-8"))
CASES = {case.name for case in stock.CASES}
FUZZED = (
    "lookup-int2",
    "lookup-two-rows",
    "linear-4d",
    "8da4w-two-matrices",
    "attention",
    "lookup-decomposed",
)
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


@pytest.mark.parametrize("config", [None, Int8WeightOnlyConfig()], ids=["float", "8-bit"])
def test_files_that_compute_float32_in_half(tmp_path, config):
    """`force_fp16` passes at half precision's limit, 8-bit linears too, beside a program or a file; not at a given one."""
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(256, 256), torch.nn.ReLU(), torch.nn.Linear(256, 64))
    if config:
        quantize_(module, config)
    exported = torch.export.export(module.eval(), (torch.randn(8, 256),), strict=False)
    torch.export.save(exported, tmp_path / "model.pt2")
    (tmp_path / "model.pte").write_bytes(stock.stock_file(exported, half=True))
    (tmp_path / "float.pte").write_bytes(stock.stock_file(exported))
    at = {name: str(tmp_path / name) for name in ("model.pt2", "model.pte", "float.pte")}
    results = [
        CliRunner().invoke(app, ["verify", at["model.pte"], *more]).exit_code
        for more in (
            ["--against", at["model.pt2"]],
            ["--against", at["float.pte"]],
            ["--against", at["model.pte"]],
            ["--against", at["model.pt2"], "--rtol", "1e-4"],
        )
    ]
    assert results == [0, 0, 0, 1]


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


def _rewritten(data):
    """What was mended in a file, and the bytes that are written of it."""
    sound = mended(parse_pte(data), RUNTIME)
    stream = BytesIO()
    write_pte(edited(sound.file, packs_of(plan(sound.file, RUNTIME, VulkanOptions()))), stream)
    return sound.mends, stream.getvalue()


@pytest.mark.parametrize(
    "row", [r for r in RECORD if r["name"] in CASES and not r["left"]], ids=lambda r: r["name"]
)
def test_a_mended_file_is_the_program(row, lowered):
    """The mends are those of the file that was right on the real runtime, and the written bytes compute the program."""
    file = lowered(row["name"])
    mends, data = _rewritten(file.data)
    assert list(dict.fromkeys(mend.code for mend in mends)) == row["mends"]
    verdict = verify_file(parse_pte(data), file.exported, VerifyOptions(seeds=1, runtime="1.5.0"))
    assert (verdict.status == "same") == (row["after"] == "right"), verdict.message


@pytest.mark.parametrize(
    "row", [r for r in RECORD if r["name"] in CASES and r["left"]], ids=lambda r: r["name"]
)
def test_what_cannot_be_mended_is_refused(row, lowered, tmp_path):
    """Nothing is written, and the error names the fault that is left; `partial` writes it all the same."""
    source, output = tmp_path / "in.pte", tmp_path / "out.pte"
    source.write_bytes(lowered(row["name"]).data)
    with pytest.raises(LoweringError, match=row["left"][0]):
        vkfuse.optimize(source, output, runtime="1.5.0")
    assert not output.exists()
    vkfuse.optimize(source, output, runtime="1.5.0", partial=True)
    assert output.exists()


@pytest.mark.parametrize(
    "case", [c for c in stock.CASES if c.expected == "right"][:12], ids=lambda case: case.name
)
def test_a_right_file_has_nothing_to_mend(case, lowered):
    """A file without faults comes back as the very same object."""
    file = parse_pte(lowered(case.name).data)
    sound = mended(file, RUNTIME)
    assert sound.file is file
    assert sound.mends == ()


@pytest.mark.parametrize("name", FUZZED)
def test_corrupted_files_are_mended_or_refused(name, lowered):
    """Bytes of the program and of the graph that were changed at random: a file, or an error of ours, in little time."""
    data, chance, done = lowered(name).data, random.Random(0), 0  # noqa: S311 - a test's own dice
    graph = data.find(b"VK00")
    for _ in range(60):
        changed = bytearray(data)
        at = chance.choice((chance.randrange(1400), graph + chance.randrange(-8, 700))) % len(data)
        changed[at] = chance.choice((changed[at] ^ 1 << chance.randrange(8), 0, 255, chance.randrange(256)))
        try:
            done += bool(_rewritten(bytes(changed))[0])
        except VkfuseError:
            continue
    assert done
