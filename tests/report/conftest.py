"""A report with something in every part."""

import pytest

from vkfuse.lint.findings import Finding
from vkfuse.measure.ledger import LedgerEntry
from vkfuse.report import model
from vkfuse.runtime.operators.lookup import Dispatch

MIB = 1 << 20


def _table(name, **change):
    """Return a fused table of a language model, unless `change` says otherwise."""
    fields = {
        "name": name,
        "shape": (33984, 640),
        "bits": 4,
        "group_size": 32,
        "consumers": ("gather",),
        "rung": "q4",
        "how": (),
        "reason": "",
        "bytes_before": 87_000_000,
        "bytes_after": 13_600_000,
        "bits_per_weight": 5.0025,
        "proof": model.Proof(kind="exact", max_abs_error=0.0),
    }
    return model.TableRow(**{**fields, **change})


def _finding(**change):
    """Return a missing operator, unless `change` says otherwise."""
    fields = {
        "kind": "operator",
        "name": "aten.logical_not.default",
        "where": "forward/0",
        "code": "not-registered",
        "hint": "not in the Vulkan runtime 1.5; keep it off the delegate",
    }
    return Finding(**{**fields, **change})


@pytest.fixture
def full():
    """Return a report with something in every part."""
    return model.Report(
        runtime="1.5",
        input=model.InputFile(path="model.pt2", bytes=289 * MIB),
        output=model.OutputFile(
            path="model.pte",
            bytes=348 * MIB + 123_456,
            sha256="0123456789abcdef" * 4,
            weights=105_750_000,
            bits_per_weight=27.6161,
        ),
        baseline=_baseline(),
        delegation=_delegation(),
        loadable=_loadable(),
        tables=_tables(),
        lookups=_lookups(),
        shaders=_shaders(),
        repairs=tuple(
            model.RepairRow(
                code="splits-as-slices", node=f"split_{n}", detail="splits of dynamic sizes have no kernel"
            )
            for n in range(6)
        ),
        verify=model.Verify(
            ran=True, ok=True, max_abs_error=2.5e-7, max_rel_error=1e-6, skipped=("method decode: no inputs",)
        ),
        cost=model.Cost(
            seconds=61.25,
            peak_rss_bytes=2_500 * MIB,
            stages=(
                model.StageCost(name="loading", seconds=2.5, cpu_seconds=2.25, peak_rss_bytes=800 * MIB),
                model.StageCost(name="lowering", seconds=38.0, cpu_seconds=40.5, peak_rss_bytes=2_500 * MIB),
            ),
        ),
        checks=(
            model.Check(name="max-size", passed=False, value=365_027_904, limit=340 * MIB, unit="bytes"),
            model.Check(name="require loadable", passed=True, value=None, limit=None),
        ),
        ledger=_ledger(),
        diff=_diff(),
        notes=("ExecuTorch 1.9 is newer than any known runtime; checked against 1.5",),
    )


def _baseline():
    """Return a file before that does not load."""
    return model.Baseline(
        kind="folded",
        bytes=418 * MIB,
        loadable=False,
        missing=("aten.logical_not.default",),
        delegation=model.Delegation(
            subgraphs=2,
            crossings=5,
            vulkan={"aten.linear.default": 30},
            cpu={"aten::embedding.out": model.CpuOperator(count=1)},
        ),
    )


def _delegation():
    """Return operators on Vulkan, and one on the CPU with its reason."""
    return model.Delegation(
        subgraphs=1,
        crossings=2,
        vulkan={"et_vk.embedding_q4gsw.default": 1, "et_vk.linear_q4gsw.default": 30},
        cpu={
            "aten::add.Scalar_out": model.CpuOperator(
                count=2, reason="integer-arithmetic", detail="no shader for aten.add.Scalar on int32"
            )
        },
        backends={"VulkanBackend": 1},
    )


def _loadable():
    """Return a verdict with findings of each effect, one of them in five places."""
    batched = {"code": "linear-input-batched", "hint": "input [2, 16, 64]; reshape it to two dimensions"}
    tanh = {"code": "gelu-by-tanh", "hint": "up to 5e-4 off"}
    return model.Loadable(
        ok=False,
        missing=("aten.logical_not.default",),
        findings=(
            _finding(name="aten.gelu.default", effect="note", **tanh),
            *(_finding(where=f"forward/{n}") for n in range(5)),
            _finding(name="et_vk.linear_q4gsw.default", effect="wrong", **batched),
        ),
    )


def _tables():
    """Return a fused table, a gathered one with a long name, and a folded one."""
    return (
        _table(
            "model.embed_tokens.weight",
            consumers=("gather", "matmul"),
            how=("columns-padded", "groups-split"),
        ),
        _table(
            "model.layers.0.self_attn.very_long_projection_name.weight",
            shape=(2048, 300),
            bits=8,
            group_size=None,
            rung="gathered",
            reason="more-than-4-bits: 8 bits; quantize to int4 in groups of 32",
            bytes_after=700_000,
            proof=model.Proof(kind="rounded", max_abs_error=1.25e-7),
        ),
        _table(
            "pos.weight",
            shape=(512, 640),
            bits=0,
            group_size=None,
            rung="folded",
            bytes_before=None,
            proof=model.Proof(kind="none", max_abs_error=None),
            reason="table-not-readable: aten.sin stands between",
        ),
    )


def _lookups():
    """Return two lookups of a tied table whose shader the device's limits decide, and one of a flat table."""
    start, runtimes = "embedding_q4gsw_float_scales", ("1.3", "1.4", "1.5")
    tied = tuple(
        Dispatch(
            name=f"{start}_linear_weight_{storage}_texture3d_float",
            when=f"maxImageDimension2D {how} 4248",
            runtimes=runtimes,
        )
        for storage, how in (("texture2d", ">="), ("buffer", "<"))
    )
    flat = (Dispatch(name=f"{start}_texture3d_float", when="", runtimes=runtimes),)
    place = {"method": "forward", "where": "forward/0"}
    row = model.LookupRow(table="model.embed_tokens.weight", shaders=tied, **place)
    return row, row, model.LookupRow(table="pos.weight", shaders=flat, **place)


def _shaders():
    """Return a shader of vkfuse's in two delegates, and one of somebody else's."""
    name = "embedding_q4gsw_float_scales_texture3d_float"
    return (
        model.EmbeddedShader(name=name, sha256="ab" * 32, bytes=5_432, where=("forward/0", "forward/1")),
        model.EmbeddedShader(name="", sha256="cd" * 32, bytes=99, where=("forward/0",)),
    )


def _ledger():
    """Return more labels than a text shows."""
    weights = "vulkan:forward/0 embedding_q4gsw weight uint8[33984,320]"
    linears = "vulkan:forward/0 linear_q4gsw weight uint8[2048,1024]"
    return (
        LedgerEntry(label=linears, kind="constant", bytes=62_914_560, count=30),
        LedgerEntry(label=weights, kind="constant", bytes=10_874_880),
        *(
            LedgerEntry(label=f"vulkan:forward/0 mul.Tensor arg1 float32[{n}]", kind="constant", bytes=4 * n)
            for n in range(40, 10, -1)
        ),
    )


def _diff():
    """Return a change of each kind."""
    return model.Diff(
        total=_change("total", 418 * MIB, 348 * MIB, -16.7464, kind="file"),
        ledger=(
            _change("forward constant float32[33984,640]", 86_999_040, None, -100.0),
            _change("vulkan:forward/0 embedding_q4gsw weight uint8[33984,320]", None, 10_874_880, None),
            _change("program", 2000, 2100, 5.0, kind="program"),
        ),
        operators=(
            model.CountChange(
                operator="aten::embedding.out", place="cpu", before=1, after=0, what="vanished"
            ),
        ),
        tables=(
            model.TableChange(
                name="0123456789ab",
                before="",
                after="q4 [33984, 640] 4-bit/32, gather, 13.0 MiB",
                delta=13_600_000,
            ),
        ),
        memory=(
            _change("file", 418 * MIB, 348 * MIB, -16.7464, kind="file"),
            _change("planned memory", 2 * MIB, 2 * MIB, 0.0, kind="cpu"),
            _change("constants on the device", None, 352 * MIB, None, kind="device"),
        ),
        layouts=(
            model.LayoutChange(
                operator="aten.linear.default",
                place="vulkan",
                before="float32 texture_3d width, of float32",
                after="float16 buffer, of float16",
                calls=30,
            ),
        ),
        findings=(
            model.FindingChange(
                effect="fails", name="aten.logical_not.default", code="not-registered", before=0, after=5
            ),
        ),
        identical=False,
        contents=(
            model.ContentChange(
                label="vulkan:forward linear_q4gsw weight uint8[2048,1024]",
                kind="constant",
                bytes=62_914_560,
                parts=30,
                changed=2,
                differing=1_234_567,
            ),
        ),
    )


def _change(label, before, after, percent, kind="constant"):
    """Return a change of size."""
    delta = (after or 0) - (before or 0)
    return model.SizeChange(label=label, kind=kind, before=before, after=after, delta=delta, percent=percent)
