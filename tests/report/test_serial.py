"""The JSON report against the JSON Schema that ships."""

import json
import math
from dataclasses import replace
from importlib.resources import files

import jsonschema
import pytest

from vkfuse.lint.findings import Finding
from vkfuse.measure.ledger import LedgerEntry
from vkfuse.report import model
from vkfuse.report.serial import dumps, json_schema, to_json
from vkfuse.runtime.operators.lookup import Dispatch

SHIPPED = json.loads((files("vkfuse.data") / "report.schema.json").read_text())

FULL = model.Report(
    runtime="1.5",
    input=model.InputFile(path="model.pt2", bytes=10),
    output=model.OutputFile(path="model.pte", bytes=4736, sha256="ab" * 32),
    baseline=model.Baseline(kind="folded", bytes=18000, loadable=True),
    delegation=model.Delegation(
        subgraphs=1,
        crossings=2,
        vulkan={"et_vk.embedding_q4gsw.default": 1},
        cpu={"aten::add.Scalar_out": model.CpuOperator(count=1, reason="no-vulkan-kernel")},
    ),
    loadable=model.Loadable(
        ok=False,
        missing=("torchao.dequantize_affine.default",),
        findings=(
            Finding(
                kind="operator",
                name="torchao.dequantize_affine.default",
                where="forward/0",
                code="not-registered",
                hint="optimize it",
            ),
        ),
    ),
    tables=(
        model.TableRow(
            name="emb.weight",
            shape=(64, 64),
            bits=4,
            group_size=32,
            consumers=("gather",),
            rung="q4",
            how=("fused",),
            reason="",
            bytes_before=16384,
            bytes_after=2560,
            proof=model.Proof(kind="exact", max_abs_error=0.0),
        ),
    ),
    lookups=(
        model.LookupRow(
            table="emb.weight",
            method="forward",
            where="forward/0",
            shaders=(Dispatch(name="embedding_q4gsw_buffer_half", when="", runtimes=("1.3", "1.5")),),
        ),
    ),
    shaders=(model.EmbeddedShader(name="", sha256="ab" * 32, bytes=12, where=("forward/0",)),),
    repairs=(model.RepairRow(code="fold-constants", node="add_3", detail="1 + weight"),),
    verify=model.Verify(ran=True, ok=False, max_abs_error=math.inf, max_rel_error=None, skipped=("b: why",)),
    cost=model.Cost(seconds=1.5, peak_rss_bytes=1 << 30),
    checks=(model.Check(name="max-size", passed=True, value=4736.0, limit=5000.0),),
    ledger=(LedgerEntry(label="header", kind="header", bytes=40),),
    notes=("runtime 1.9 is newer than any known",),
)


@pytest.mark.parametrize("report", [FULL, model.Report(runtime="1.5")], ids=["full", "empty"])
def test_json_follows_the_shipped_schema(report):
    """What `dumps` writes is strict JSON with the promised keys, and the schema accepts it."""
    written = json.loads(dumps(report), parse_constant=pytest.fail)
    jsonschema.Draft202012Validator.check_schema(SHIPPED)
    jsonschema.validate(written, SHIPPED)
    assert written["schema"] == "vkfuse.report/2"
    assert written == to_json(report)


def test_schema_file_is_what_the_dataclasses_say():
    """The shipped file is generated; `python -m vkfuse.report.serial` renews it."""
    assert json_schema() == SHIPPED


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"runtime": 1.5}, "runtime"),
        ({"verify": replace(FULL.verify, max_abs_error="large")}, "verify/max_abs_error"),
        ({"tables": (replace(FULL.tables[0], rung="q5"),)}, "tables/0/rung"),
        ({"checks": (replace(FULL.checks[0], passed="yes"),)}, "checks/0/passed"),
    ],
)
def test_schema_refuses_other_types(change, path):
    """The schema is no rubber stamp: a wrong type or unknown rung fails, at its place."""
    with pytest.raises(jsonschema.ValidationError) as failure:
        jsonschema.validate(to_json(replace(FULL, **change)), SHIPPED)
    assert "/".join(map(str, failure.value.absolute_path)) == path


def test_promised_keys_exist():
    """The keys that scripts rely on (docs/report.md) are there under these names."""
    written = to_json(FULL)
    promised = {
        "schema": None,
        "vkfuse": None,
        "runtime": None,
        "input": {"path", "bytes"},
        "output": {"path", "bytes", "sha256"},
        "baseline": {"kind", "bytes", "loadable"},
        "delegation": {"subgraphs", "vulkan", "cpu", "crossings"},
        "loadable": {"ok", "missing"},
        "verify": {"ran", "ok", "max_abs_error", "max_rel_error", "skipped"},
        "cost": {"seconds", "peak_rss_bytes", "stages"},
    }
    for key, members in promised.items():
        assert key in written
        assert members is None or members <= set(written[key])
    rows = {
        "tables": "name shape bits group_size consumers rung how reason bytes_before bytes_after proof",
        "checks": "name passed value limit",
        "ledger": "label kind bytes",
        "repairs": "code node detail",
    }
    for key, members in rows.items():
        assert set(members.split()) <= set(written[key][0])
    assert written["tables"][0]["proof"] == {"kind": "exact", "max_abs_error": 0.0}
    on_cpu = written["delegation"]["cpu"]["aten::add.Scalar_out"]
    assert (on_cpu["count"], on_cpu["reason"]) == (1, "no-vulkan-kernel")
