"""`tables[].proof` is read from the written bytes: exact, rounded by the error that is computed here, or none."""

from dataclasses import dataclass

import pytest
import torch
from programs import Build, Lookup, Positions, export, indices, linear, lookup, quantize
from torch import nn

import vkfuse
from vkfuse.options import BaselineChoice, LookupLayout, VulkanOptions
from vkfuse.pipeline import inspect
from vkfuse.pipeline.proofs import proofs_of, prove_method
from vkfuse.program.load import from_exported
from vkfuse.pte import read_pte, reader, vulkan
from vkfuse.quiet import quiet
from vkfuse.rewrite import plan as planning
from vkfuse.runtime.versions import find_runtime
from vkfuse.tables import nibbles
from vkfuse.tables.proven import Proof

NONE = BaselineChoice.NONE
FLAT = LookupLayout.FLAT
INT8 = {"weight_dtype": torch.int8}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A program and the rung of its table `weight`; `folded` where its floats are stored."""

    name: str
    build: Build
    weight: str
    rung: str
    layout: LookupLayout = LookupLayout.LINEAR
    runtime: str = "1.5"


CASES = (
    Case(name="lookup", build=lookup(2, 7), weight="table.weight", rung="q4"),
    Case(name="flat", build=lookup(2, 7), weight="table.weight", rung="q4", layout=FLAT),
    Case(name="padded columns", build=lookup(7, columns=33, group=None), weight="table.weight", rung="q4"),
    Case(name="split groups", build=lookup(7, columns=48, group=16), weight="table.weight", rung="q4"),
    Case(name="padded rows", build=linear(5, 64, outputs=102), weight="layer.weight", rung="q4"),
    Case(name="gathered", build=lookup(2, 7, **INT8), weight="table.weight", rung="gathered"),
    Case(name="old runtime", build=lookup(2, 7), weight="table.weight", rung="gathered", runtime="1.2"),
    Case(
        name="folded", build=linear(5, 64, outputs=104, group=4, **INT8), weight="layer.weight", rung="folded"
    ),
)


def _exported(build):
    torch.manual_seed(0)
    with quiet():
        return build()


def _half_error(weight, *, folded):
    """The largest error that half precision makes of a table: of its scales, or of its floats."""
    floats = weight.dequantize()
    if folded:
        return float((floats.half().float() - floats).abs().max())
    groups = weight.scale.shape[1]
    integers = (
        weight.qdata - weight.zero_point.repeat_interleave(weight.qdata.shape[1] // groups, 1)
    ).float()
    scales = weight.scale.half().float().repeat_interleave(weight.qdata.shape[1] // groups, 1)
    return float((integers * scales - floats).abs().max())


@pytest.mark.parametrize("fp16", [False, True], ids=["float", "half"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_proof_of_the_written_bytes(case, fp16, tmp_path):
    """Exact in float; in half precision rounded by what half makes of scales, or of a folded table. Nothing is run."""
    exported = _exported(case.build)
    vulkan = VulkanOptions(fp16=fp16, lookup_layout=case.layout)
    report = vkfuse.optimize(
        exported, tmp_path / "m.pte", baseline=NONE, vulkan=vulkan, runtime=case.runtime, verify=False
    ).report
    (table,) = report.tables
    assert table.rung == case.rung
    if not fp16:
        assert table.proof == Proof(kind="exact", max_abs_error=0.0)
        return
    assert table.proof.kind == "rounded"
    error = _half_error(exported.state_dict[case.weight], folded=case.rung == "folded")
    assert error > 0
    assert table.proof.max_abs_error == pytest.approx(error, rel=1e-3)


def test_the_plan_is_not_asked(monkeypatch, tmp_path):
    """A wrong nibble that the plan takes for exact is no exact proof, also of a file that is not verified."""
    pack = nibbles.pack

    def flipped(values, **order):
        packed = pack(values, **order)
        packed[-1, -1] ^= 16
        return packed

    monkeypatch.setattr(nibbles, "pack", flipped)
    monkeypatch.setattr(planning, "prove", lambda *_: Proof(kind="exact", max_abs_error=0.0))
    exported = _exported(lookup(2, 7))
    (table,) = vkfuse.optimize(exported, tmp_path / "m.pte", baseline=NONE, verify=False).report.tables
    step = exported.state_dict["table.weight"].scale[-1, -1]
    assert table.proof == Proof(kind="rounded", max_abs_error=pytest.approx(float(step), rel=1e-5))


def test_no_bytes_no_proof(tmp_path):
    """A table that another file does not hold is proved by nothing there; of its own file it is exact."""
    exported = from_exported(_exported(lookup(2, 7))).exported
    plans = planning.plan({"forward": exported}, find_runtime("1.5"))
    vkfuse.optimize(exported, tmp_path / "own.pte", baseline=NONE, verify=False)
    other = export(quantize(Lookup(100, 96), nn.Embedding), indices(2, 7))
    vkfuse.optimize(other, tmp_path / "other.pte", baseline=NONE, verify=False)
    found = [
        [
            *proofs_of(
                [prove_method(read_pte(tmp_path / name), "forward", exported, plans["forward"])]
            ).values()
        ]
        for name in ("own.pte", "other.pte")
    ]
    assert found == [[Proof(kind="exact", max_abs_error=0.0)], [None]]


def test_inspect_proves_nothing(program):
    """Nothing is written, so nothing is said of its bytes."""
    assert [table.proof for table in inspect(program).report.tables] == [None]


def test_a_float_table_is_no_weight_of_its_size(tmp_path):
    """A float table of the shape of a 4-bit weight is the program's own: the file in half precision passes."""
    torch.manual_seed(0)
    exported = export(quantize(Positions(), nn.Linear), indices(2, 7))
    report = vkfuse.optimize(
        exported, tmp_path / "m.pte", baseline=NONE, vulkan=VulkanOptions(fp16=True)
    ).report
    assert report.verify.ok
    assert {(table.name, table.rung, table.proof.kind) for table in report.tables} == {
        ("first.weight", "q4", "rounded"),
        ("second.weight", "q4", "rounded"),
    }


def test_the_written_file_is_read_and_decoded_once(monkeypatch, tmp_path):
    """The judge, the proofs, verify and the report look at one reading of the final bytes."""
    read, decoded = [], []
    parse, decode = reader.parse_pte, vulkan.read_vulkan_graph
    monkeypatch.setattr(reader, "parse_pte", lambda *a, **k: read.append(1) or parse(*a, **k))
    monkeypatch.setattr(vulkan, "read_vulkan_graph", lambda *a, **k: decoded.append(1) or decode(*a, **k))
    report = vkfuse.optimize(_exported(lookup(2, 7)), tmp_path / "m.pte", baseline=NONE).report
    assert (report.verify.ok, report.delegation.subgraphs) == (True, 1)
    assert (len(read), len(decoded)) == (1, 1)
