"""What made a file: same input, same bytes; the report says from what; a statement about it for those who sign."""

import hashlib
import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from running import environment

from vkfuse.pte import read_pte
from vkfuse.report.attestation import PREDICATE


def _optimize(folder, seed, *arguments):
    """Run `vkfuse optimize` in a folder with a hash seed of its own."""
    command = [sys.executable, "-m", "vkfuse", "optimize", *map(str, arguments)]
    env = {**environment(), "PYTHONHASHSEED": seed}
    return subprocess.run(
        command, cwd=folder, env=env, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.fixture(scope="module")
def built(program, tmp_path_factory):
    """Two folders in which one program was built, by processes of other seeds, from and to other paths."""
    first, second = (tmp_path_factory.mktemp(name) for name in ("first", "second"))
    (second / "a" / "b").mkdir(parents=True)
    (second / "a" / "other.pt2").write_bytes(program.read_bytes())
    kept = ("--keep-baseline=before.pte", "--attestation=model.intoto.json", "--report=r.json", "-q")
    ran = _optimize(first, "1", program, "-o", "model.pte", *kept)
    assert ran.returncode == 0, ran.stderr
    again = ("-o", second / "a" / "b" / "o.pte", "--baseline=none", "-q")
    assert _optimize(second, "4242", "a/other.pt2", *again).returncode == 0
    return first, second


def test_same_input_same_bytes(built):
    """Another process, path, folder and hash seed; another baseline: the same bytes."""
    first, second = built
    assert (first / "model.pte").read_bytes() == (second / "a" / "b" / "o.pte").read_bytes()


def test_the_report_says_from_what(built, program):
    """Hashes of input and output, versions, options, command."""
    report = json.loads((built[0] / "r.json").read_text())
    assert report["input"]["sha256"] == hashlib.sha256(program.read_bytes()).hexdigest()
    assert report["methods"][0]["input"] == report["input"]
    assert report["output"]["sha256"] == hashlib.sha256((built[0] / "model.pte").read_bytes()).hexdigest()
    made = report["provenance"]
    assert made["versions"] == {
        "vkfuse": report["vkfuse"],
        **{name: version(name) for name in ("torch", "torchao", "executorch")},
    }
    assert len(made["runtime_data"]) == 64
    assert made["command"] == ["optimize", str(program), "-o", "model.pte", *made["command"][4:]]
    expected = {"baseline": "folded", "storage": "texture", "fp16": False, "verify": True, "max_size": None}
    assert {name: made["options"][name] for name in expected} == expected


def test_the_statement(built):
    """An in-toto Statement v1: the file by its hash, the report as predicate."""
    first = built[0]
    read = json.loads((first / "model.intoto.json").read_text())
    digest = hashlib.sha256((first / "model.pte").read_bytes()).hexdigest()
    assert read["_type"] == "https://in-toto.io/Statement/v1"
    assert read["subject"] == [{"name": "model.pte", "digest": {"sha256": digest}}]
    assert read["predicateType"] == PREDICATE == "vkfuse:report/2"
    assert read["predicate"] == json.loads((first / "r.json").read_text())


def test_the_baseline_is_kept(built):
    """The file before, as the report measured it."""
    baseline = json.loads((built[0] / "r.json").read_text())["baseline"]
    kept = read_pte(built[0] / "before.pte")
    assert (baseline["kind"], kept.size) == ("folded", baseline["bytes"])


def test_check_builds_again(built, program, vkfuse, tmp_path):
    """`--check`: 0 for the file as it is, 1 with the table that differs; nothing is written."""
    first = built[0]
    ran = vkfuse("optimize", program, "--check", first / "model.pte", "--no-verify", "-q")
    assert (ran.code, ran.out, ran.err) == (0, "", "")
    data = bytearray((first / "model.pte").read_bytes())
    pte = read_pte(first / "model.pte")
    largest = max(pte.named, key=lambda entry: entry.data_at.size)
    data[largest.data_at.offset] ^= 1
    (tmp_path / "other.pte").write_bytes(data)
    ran = vkfuse("optimize", program, "--check", tmp_path / "other.pte", "--no-verify", "-q")
    assert ran.code == 1
    assert "exit-code: differs, limit identical, first: table.weight" in ran.err
    assert [path.name for path in tmp_path.iterdir()] == ["other.pte"]
    assert (tmp_path / "other.pte").read_bytes() == data


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        ((), "give -o MODEL.pte, or --check MODEL.pte"),
        (("-o", "a.pte", "--check", "b.pte"), "give -o MODEL.pte, or --check MODEL.pte"),
        (("--check", "b.pte", "--attestation", "a.json"), "leave out --keep-baseline and --attestation"),
        (("--check", "b.pte", "--baseline", "folded"), "leave out --baseline"),
        (
            ("-o", "a.pte", "--baseline=none", "--keep-baseline", "b.pte"),
            "--baseline folded or stock makes one",
        ),
        (("-o", "a.pte", "--attestation", "a.pte"), "give each output a name of its own"),
    ],
)
def test_targets_that_exclude_each_other(vkfuse, program, arguments, hint, tmp_path, monkeypatch):
    """Exit code 2 before any work, and nothing is there."""
    monkeypatch.chdir(tmp_path)
    ran = vkfuse("optimize", program, *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert hint in ran.err
    assert list(Path().iterdir()) == []


def test_what_fails_a_gate_is_not_attested(vkfuse, program, tmp_path, monkeypatch):
    """No file, no statement about one; the report stays."""
    monkeypatch.chdir(tmp_path)
    outputs = ("-o", "m.pte", "--attestation=m.json", "--report=r.json", "--max-size=1KiB")
    assert vkfuse("optimize", program, *outputs, "--baseline=none", "--no-verify", "-q").code == 1
    assert [path.name for path in Path().iterdir()] == ["r.json"]
