"""The commands on real files: results on stdout, progress on stderr, reports that scripts can read."""

import contextlib
import hashlib
import json
import os
import pty
import re
import subprocess
import sys
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import jsonschema
import pytest
from running import environment

import vkfuse as package
from vkfuse.commands.optimize import seconds_of
from vkfuse.commands.report import report_files
from vkfuse.errors import OutputError
from vkfuse.options import BaselineChoice, Options
from vkfuse.program.check import open_checked
from vkfuse.pte import read_pte

TERMINAL = {**environment(), "TERM": "xterm", "COLUMNS": "120"}

KEYS = {
    "schema": None,
    "vkfuse": None,
    "runtime": None,
    "input": {"path", "bytes"},
    "output": {"path", "bytes", "sha256"},
    "baseline": {"kind", "bytes", "loadable"},
    "delegation": {"subgraphs", "vulkan", "cpu"},
    "loadable": {"ok", "missing"},
    "tables": {
        "name",
        "shape",
        "bits",
        "group_size",
        "consumers",
        "rung",
        "how",
        "reason",
        "bytes_before",
        "bytes_after",
        "proof",
    },
    "verify": {"ran", "ok", "max_abs_error", "max_rel_error", "skipped"},
    "cost": {"seconds", "peak_rss_bytes", "stages"},
    "checks": None,
    "ledger": {"label", "kind", "bytes"},
}
STAGES = [
    "loading",
    "planning",
    "lowering",
    "reading back",
    "proving",
    "verifying",
    "making the folded baseline",
    "lowering the folded baseline",
    "reporting",
]


def _check_report(report):
    """The report fits the schema that ships with the package and has every key that the design names."""
    schema = json.loads(files("vkfuse.data").joinpath("report.schema.json").read_text())
    jsonschema.validate(report, schema)
    for key, fields in KEYS.items():
        value = report[key]
        for entry in value if isinstance(value, list) else [value]:
            assert fields is None or fields <= set(entry), key


@pytest.fixture(scope="module")
def optimized(program, start, tmp_path_factory):
    """`vkfuse optimize` as its own process: (exit code, stdout, stderr, folder with model.pte, r.json, r.md)."""
    folder = tmp_path_factory.mktemp("optimized")
    reports = [f"--report={folder / name}" for name in ("r.json", "r.md")]
    process = start("optimize", program, "-o", folder / "model.pte", *reports)
    out, err = process.communicate(timeout=300)
    return process.returncode, out.decode(), err.decode(), folder


def test_optimize_speaks_on_the_right_streams(optimized):
    """Exit code 0; the report alone on stdout, a line for each stage on stderr and nothing of torch or ExecuTorch."""
    code, out, err, folder = optimized
    assert code == 0
    assert err.splitlines() == [f"vkfuse: {stage}" for stage in STAGES]
    assert str(folder / "model.pte") in out
    assert "table.weight" in out
    assert "\x1b[" not in out + err


def test_optimize_leaves_only_what_was_asked_for(optimized):
    """The file and the reports, no temporary; the file reads back and its hash is the report's."""
    folder = optimized[-1]
    assert {path.name for path in folder.iterdir()} == {"model.pte", "r.json", "r.md"}
    report = json.loads((folder / "r.json").read_text())
    assert (
        report["output"]["bytes"]
        == (folder / "model.pte").stat().st_size
        == read_pte(folder / "model.pte").size
    )
    assert report["output"]["path"] == str(folder / "model.pte")
    assert (folder / "r.md").read_text().startswith("#")


def test_json_report(optimized, program):
    """The report of a real run: schema, keys, and numbers that hold together."""
    report = json.loads((optimized[-1] / "r.json").read_text())
    _check_report(report)
    (table,) = report["tables"]
    assert (table["name"], table["shape"], table["bits"], table["group_size"]) == (
        "table.weight",
        [100, 64],
        4,
        32,
    )
    assert (table["rung"], table["how"], table["consumers"]) == ("q4", ["indices-flattened"], ["gather"])
    assert (table["bytes_before"], table["bytes_after"]) == (100 * 64 * 4, 100 * (32 + 2 * 4))
    assert table["proof"] == {"kind": "exact", "max_abs_error": 0.0}
    assert report["baseline"]["kind"] == "folded"
    assert report["baseline"]["bytes"] > report["output"]["bytes"] + 15_000
    assert report["delegation"]["vulkan"]["et_vk.embedding_q4gsw.default"] == 1
    digest = hashlib.sha256(program.read_bytes()).hexdigest()
    assert report["input"] == {"path": str(program), "bytes": program.stat().st_size, "sha256": digest}
    assert report["verify"]["ok"] is True
    assert report["verify"]["max_abs_error"] == 0
    assert [stage["name"] for stage in report["cost"]["stages"]] == STAGES
    assert sum(stage["seconds"] for stage in report["cost"]["stages"]) <= report["cost"]["seconds"] + 0.01
    assert sum(entry["bytes"] for entry in report["ledger"]) == report["output"]["bytes"]


def test_the_file_knows_the_names_of_its_tables(optimized, program, start, tmp_path):
    """A report of the file alone says `table.weight`; with --no-names it is the hash, and everything else is the same."""
    named, plain = optimized[-1] / "model.pte", tmp_path / "plain.pte"
    process = start("optimize", program, "-o", plain, "--baseline=none", "--no-names", "--no-verify", "-q")
    assert process.wait(timeout=300) == 0
    with_names, without = (report_files(path) for path in (named, plain))
    assert [row.name for row in with_names.tables] == ["table.weight"]
    assert [lookup.table for lookup in with_names.lookups] == ["table.weight"]
    (row,) = without.tables
    assert re.fullmatch("[0-9a-f]{12}", row.name)
    assert replace(row, name="table.weight") == with_names.tables[0]
    rest = [
        {entry.label: entry.bytes for entry in of.ledger if entry.kind == "constant"}
        for of in (with_names, without)
    ]
    assert rest[0] == rest[1]


def test_a_file_that_fails_a_gate_is_not_written(program, start, tmp_path):
    """Exit code 1: what was there stays, the reports say what the file would have been and which checks it failed."""
    model = tmp_path / "model.pte"
    model.write_bytes(b"released")
    gates = ("--max-size=1KiB", "--require=verified", "--require=loadable", "--require=fused", "--exact")
    report = tmp_path / "r.json"
    process = start("optimize", program, "-o", model, "--baseline=none", "--report", report, *gates)
    out, err = (text.decode() for text in process.communicate(timeout=300))
    assert process.returncode == 1
    assert model.read_bytes() == b"released"
    assert {path.name for path in tmp_path.iterdir()} == {"model.pte", "r.json"}
    read = json.loads(report.read_text())
    _check_report(read)
    assert [(c["name"], c["passed"]) for c in read["checks"]] == [
        ("max-size", False),
        ("require verified", True),
        ("require loadable", True),
        ("require fused", True),
        ("exact", True),
    ]
    assert read["checks"][0]["value"] == read["output"]["bytes"] > 1024
    assert f"{model} is not written, since a check failed" in " ".join(out.split())
    assert "\nvkfuse: error: 1 of 5 checks failed\n  max-size: " in err


def test_verify_writes_its_verdict(optimized, program, vkfuse, tmp_path):
    """With -q nothing is printed of a file that is right; the verdict is in the files, and on stderr where it is wrong."""
    model = optimized[-1] / "model.pte"
    reports = [f"--report={tmp_path / name}" for name in ("v.json", "v.txt")]
    ran = vkfuse("verify", model, "--against", program, "--seeds=0", "-q", *reports)
    assert (ran.code, ran.out, ran.err) == (0, "", "")
    assert json.loads((tmp_path / "v.json").read_text())["status"] == "same"
    assert (tmp_path / "v.txt").read_text().startswith("same: the file computes what the program does")
    data = bytearray(model.read_bytes())
    largest = max(read_pte(model).named, key=lambda entry: entry.data_at.size)
    data[largest.data_at.offset] ^= 1
    (tmp_path / "wrong.pte").write_bytes(data)
    ran = vkfuse("verify", tmp_path / "wrong.pte", "--against", program, "--seeds=0", "-q", reports[0])
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith(f"vkfuse: error: {tmp_path / 'wrong.pte'}: differs: ")
    assert json.loads((tmp_path / "v.json").read_text())["ok"] is False


def test_inspect_knows_the_layout(program, vkfuse):
    """`--lookup-layout` changes the plan of inspect as it changes the file of optimize."""
    for layout, how in (("flat", ["flat-layout"]), ("linear", [])):
        ran = vkfuse("inspect", program, "--lookup-layout", layout, "--format=json")
        (table,) = json.loads(ran.out)["tables"]
        assert [code for code in table["how"] if code == "flat-layout"] == how


def test_examples_import_from_the_package():
    """All names of the package are there, and no document reaches into its insides."""
    assert all(getattr(package, name) is not None for name in package.__all__)
    root = Path(__file__).parents[2]
    for document in (root / "README.md", *(root / "docs").glob("*.md")):
        for example in re.findall(r"```python\n(.*?)```", document.read_text(), re.DOTALL):
            assert not re.search(r"(from|import) vkfuse\.", example), document


def test_pipes(program, start):
    """`vkfuse optimize - -o -`: the program from stdin, the file alone on stdout, the report on stderr."""
    with program.open("rb") as source:
        process = start("optimize", "-", "-o", "-", "--baseline=none", "--format=json", stdin=source)
        out, err = process.communicate(timeout=300)
    assert process.returncode == 0
    assert out[4:8] == b"ET12"
    text = err.decode()
    report = json.loads(text[text.index("{") :])
    _check_report(report)
    assert report["output"]["bytes"] == len(out)
    digest = hashlib.sha256(program.read_bytes()).hexdigest()
    assert report["input"] == {"path": "stdin", "bytes": program.stat().st_size, "sha256": digest}
    assert report["baseline"] == {**report["baseline"], "kind": "none", "bytes": None}


def test_quiet_prints_nothing(vkfuse, program, tmp_path):
    """With -q a run that succeeds is silent; the report file is written all the same."""
    ran = vkfuse(
        "optimize", program, "-o", tmp_path / "m.pte", "-q", "--baseline=none", f"--report={tmp_path}/r.json"
    )
    assert (ran.code, ran.out, ran.err) == (0, "", "")
    _check_report(json.loads((tmp_path / "r.json").read_text()))


@pytest.mark.parametrize("kind", ["stock", "file"])
def test_baselines(kind, vkfuse, program, optimized, tmp_path):
    """`--baseline stock` measures what the installed ExecuTorch makes, `--baseline FILE` a file."""
    other = optimized[-1] / "model.pte"
    choice = other if kind == "file" else kind
    ran = vkfuse(
        "optimize", program, "-o", tmp_path / "m.pte", f"--baseline={choice}", "--no-verify", "--format=json"
    )
    assert ran.code == 0
    baseline = json.loads(ran.out)["baseline"]
    assert baseline["kind"] == kind
    assert baseline["bytes"] > 3000
    if kind == "file":
        assert baseline["bytes"] == other.stat().st_size


def test_output_that_is_the_input(program):
    """From Python too the program is not written over; the error comes before any work."""
    before = program.read_bytes()
    with pytest.raises(OutputError, match="are the same file"):
        package.optimize(program, program)
    assert program.read_bytes() == before


def test_inspect_lowers_nothing(vkfuse, program):
    """`vkfuse inspect` shows the plan of each table and what it would take, and no file."""
    ran = vkfuse("inspect", program, "--format=json")
    assert ran.code == 0
    report = json.loads(ran.out)
    assert report["output"] is None
    assert [(t["name"], t["rung"], t["bytes_after"]) for t in report["tables"]] == [
        ("table.weight", "q4", 4000)
    ]
    assert ran.err.splitlines() == ["vkfuse: loading", "vkfuse: planning"]


def test_a_terminal_shows_what_a_run_should_take(program, tmp_path):
    """Beside the stages' bars stands how long all of them should take, by nodes and bytes; with a cache nothing does."""
    command = [
        sys.executable,
        "-m",
        "vkfuse",
        "optimize",
        program,
        "-o",
        tmp_path / "m.pte",
        "--baseline=none",
    ]

    def shown(*more):
        ours, theirs = pty.openpty()
        with subprocess.Popen(
            [*command, *more], stdout=subprocess.DEVNULL, stderr=theirs, env=TERMINAL
        ) as run:
            os.close(theirs)
            text = b""
            with contextlib.suppress(OSError):  # its end, on Linux
                while chunk := os.read(ours, 4096):
                    text += chunk
            os.close(ours)
        assert run.returncode == 0
        return text.decode()

    whole = shown()
    checked = open_checked(program)
    seconds = seconds_of([checked], Options())
    assert 5 < seconds < 6
    assert f"of about {seconds:.0f} s on a free core" in whole
    assert "lowering" in whole
    assert "of about" not in shown("--cache", tmp_path / "cache")
    assert seconds_of([checked], Options(baseline=BaselineChoice.STOCK)) is None
    assert seconds_of([replace(checked, model=None)], Options()) is None


def test_report_reads_what_optimize_wrote(optimized, start):
    """`vkfuse report NEW BASE` as its own process, into a pipe whose reader goes away, is no traceback."""
    new = optimized[-1] / "model.pte"
    process = start("report", new, new, "--format=json")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, b"")
    assert json.loads(out)["diff"]["identical"] is True
    process = start("report", new)
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(timeout=60) == 141
    process.stderr.close()


def test_help_and_version(start):
    """Help names every command; the version is the package's; both come without torch."""
    out, err = start("--help").communicate(timeout=60)
    assert err == b""
    listed = [line.split()[0] for line in out.decode().partition("Commands:")[2].splitlines() if line.strip()]
    assert set(listed) >= {"optimize", "inspect", "report", "verify", "demo", "shader"}
    out, err = start("--version").communicate(timeout=60)
    assert (out.decode(), err) == (f"vkfuse {package.__version__}\n", b"")


@pytest.mark.parametrize("command", ["optimize", "inspect", "report", "demo"])
def test_each_command_has_help(command, vkfuse):
    """`vkfuse COMMAND --help` shows arguments and options, each with its sentence."""
    ran = vkfuse(command, "--help")
    assert (ran.code, ran.err) == (0, "")
    entries = re.findall(r"^  (?=\S)(.*(?:\n {4,}.*)*)", ran.out.partition("\n\n  ")[2], flags=re.MULTILINE)
    assert any("--help" in entry for entry in entries)
    undescribed = [entry for entry in entries if not re.search(r"\.|required", entry)]
    assert undescribed == []
