"""`vkfuse report` on real files: what it measures, and what changed."""

import dataclasses
import hashlib
import io
import json
import subprocess
import sys
from importlib.resources import files as data_files

import jsonschema
import pytest

from vkfuse.commands.report import report_files
from vkfuse.errors import InputError
from vkfuse.lint.findings import Finding
from vkfuse.pte import read_pte
from vkfuse.report.build import delegation_of, judged, measure
from vkfuse.report.diff import diff_of
from vkfuse.report.model import CountChange
from vkfuse.report.serial import to_json
from vkfuse.runtime.codes import Code, Objection


def test_report_of_one_file(files):
    """Size, hash, verdict, delegation, tables and ledger of a file, under the shipped schema."""
    path = files / "fused.pte"
    report = report_files(path, runtime="1.5.1")
    assert dataclasses.astuple(report.output)[:3] == (
        str(path),
        path.stat().st_size,
        hashlib.sha256(path.read_bytes()).hexdigest(),
    )
    assert (report.runtime, report.baseline, report.diff, report.notes) == ("1.5.1", None, None, ())
    assert report.loadable.ok
    assert (report.delegation.subgraphs, report.delegation.crossings, report.delegation.cpu) == (1, 2, {})
    (table,) = report.tables
    assert (table.shape, table.bits, table.group_size, table.consumers, table.rung, table.bytes_after) == (
        *((64, 64), 4, 32, ("gather",), "q4", 2560),
    )
    assert sum(entry.bytes for entry in report.ledger) == report.output.bytes
    schema = json.loads((data_files("vkfuse.data") / "report.schema.json").read_text())
    jsonschema.validate(to_json(report), schema)


def test_what_changed(files):
    """From a folded table on the CPU to a fused one: sizes, labels, operators and tables, largest first."""
    report = report_files(files / "fused.pte", files / "folded.pte")
    new, base = ((files / f"{name}.pte").stat().st_size for name in ("fused", "folded"))
    diff = report.diff
    assert (diff.total.before, diff.total.after, diff.total.delta) == (base, new, new - base)
    assert diff.total.percent == pytest.approx(100 * (new - base) / base)
    assert [abs(change.delta) for change in diff.ledger] == sorted(
        (abs(change.delta) for change in diff.ledger), reverse=True
    )
    assert sum(change.delta for change in diff.ledger) == new - base
    first, second = diff.ledger[:2]
    assert (first.label, first.before, first.after) == ("forward constant float32[64,64]", 16384, None)
    assert (second.label, second.before, second.percent) == (
        *("vulkan:forward embedding_q4gsw weight uint8[64,32]", None, None),
    )
    assert diff.operators == (
        CountChange(operator="aten::embedding.out", place="cpu", before=1, after=0, what="vanished"),
        CountChange(
            operator="et_vk.embedding_q4gsw.default", place="vulkan", before=0, after=1, what="appeared"
        ),
    )
    assert [(bool(change.before), bool(change.after)) for change in diff.tables] == [
        (True, False),
        (False, True),
    ]
    assert (report.baseline.kind, report.baseline.bytes, report.baseline.loadable) == ("file", base, True)
    assert not diff.identical


def test_a_file_against_itself_and_against_one_byte_less(files):
    """Nothing changes from a file to itself; a changed byte in a weight changes no label but the identity."""
    same = report_files(files / "tied.pte", files / "tied.pte").diff
    assert (same.identical, same.total.delta, same.ledger, same.operators, same.tables) == (
        True,
        0,
        (),
        (),
        (),
    )
    pte = read_pte(files / "tied.pte")
    data = bytearray(pte.data)
    data[pte.named[0].data_at.offset] ^= 1
    other = dataclasses.replace(pte, data=memoryview(bytes(data)))
    changed = diff_of(measure(other), measure(pte))
    assert (changed.identical, changed.ledger, changed.operators) == (False, (), ())


def test_tables_that_one_constant_serves(files):
    """Two uses of one weight are one row; without a name in the file it is named after its content."""
    tables = report_files(files / "tied.pte").tables
    assert sorted((row.shape, row.consumers, row.rung) for row in tables) == [
        ((64, 64), ("gather",), "q4"),
        ((64, 64), ("matmul",), "q4"),
    ]
    keys = [entry.key for entry in read_pte(files / "tied.pte").named]
    assert all(any(key.startswith(row.name) for key in keys) for row in tables)
    (folded,) = report_files(files / "folded.pte").tables
    assert (folded.name, folded.rung, folded.bits) == ("constant 1", "untouched", 32)
    (unfused,) = report_files(files / "unfused.pte").tables
    assert (unfused.rung, unfused.bits, unfused.consumers) == ("untouched", 8, ("dequantize",))


def test_verdicts(files):
    """Missing names are listed; a wrong result is no success; notes alone are."""
    unfused = report_files(files / "unfused.pte").loadable
    assert (unfused.ok, unfused.missing) == (False, ("torchao.dequantize_affine.default",))
    rows = report_files(files / "rows.pte").loadable
    assert (rows.ok, rows.missing) == (False, ())
    note = Finding(
        kind="format", name="x", where="forward", code="external-constants", hint="", effect="note"
    )
    assert judged((note,)).ok
    assert report_files(files / "fused.pte", runtime="9.9").notes == (
        "ExecuTorch 9.9 is newer than any known runtime; checked against 1.5.1",
    )


def test_reasons_reach_the_kernels(files):
    """The reason of `aten.add.Scalar` explains `aten::add.Scalar_out`; without one the operator list may."""
    reasons = {
        "aten.add.Tensor": Objection(Code.NO_RESIZE, "another overload"),
        "aten.add.Scalar": Objection(Code.INTEGER_ARITHMETIC, "int32"),
    }
    (kernel,) = delegation_of(read_pte(files / "tied.pte"), reasons).cpu.values()
    assert (kernel.reason, kernel.detail) == ("integer-arithmetic", "int32")
    (kernel,) = delegation_of(read_pte(files / "tied.pte")).cpu.values()
    assert kernel.reason == ""
    (kernel,) = delegation_of(read_pte(files / "sorted.pte")).cpu.values()
    assert kernel.reason == "not-registered"


def test_stdin(files, monkeypatch):
    """`-` reads stdin, once."""
    data = (files / "fused.pte").read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    assert report_files("-").output.bytes == len(data)
    with pytest.raises(InputError, match="stdin"):
        report_files("-", "-")


def test_a_report_imports_no_torch(files):
    """The whole command runs without torch, executorch and numpy."""
    code = (
        "import sys; from pathlib import Path; from vkfuse.commands.report import report_files;"
        "from vkfuse.report.format import Format; from vkfuse.report.render import rendered;"
        "print(rendered(report_files(Path(sys.argv[1]), Path(sys.argv[2])), Format.TEXT)[:9]);"
        "print([n for n in ('torch', 'torchao', 'executorch', 'numpy') if n in sys.modules])"
    )
    command = [sys.executable, "-c", code, str(files / "fused.pte"), str(files / "folded.pte")]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == "[]"
