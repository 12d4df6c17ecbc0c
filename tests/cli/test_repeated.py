"""`--cache`: the same input, options and versions cost a hash, and give the same file and report."""

import hashlib
import json
import subprocess
import sys
from dataclasses import replace

import pytest
from running import environment

from vkfuse import entries
from vkfuse.entries import MissedError
from vkfuse.gates import Requirement
from vkfuse.options import BaselineChoice, Options, Storage, VulkanOptions
from vkfuse.report.format import Format
from vkfuse.report.model import Report
from vkfuse.report.render import rendered
from vkfuse.report.stored import restored, stored
from vkfuse.runs import kept, repeated


def _optimize(folder, *arguments):
    """Run `vkfuse optimize` in a folder with a cache there. Exit code, stages, report, and whether torch was imported."""
    report = folder / "r.json"
    report.unlink(missing_ok=True)
    command = [sys.executable, "-X", "importtime", "-m", "vkfuse", "optimize", *map(str, arguments)]
    ran = subprocess.run(
        [*command, "--report=r.json", "--cache=entries"],
        cwd=folder, env=environment(), capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    stages = [line[8:] for line in ran.stderr.splitlines() if line.startswith("vkfuse: ")]
    found = json.loads(report.read_text()) if report.exists() else None
    return ran.returncode, stages, found, "| torch\n" in ran.stderr.replace(" ", "").replace("|", "| ")


@pytest.fixture(scope="module")
def ran(program, tmp_path_factory):
    """A folder with a run in its cache, and the run's report."""
    folder = tmp_path_factory.mktemp("repeated")
    code, stages, report, torch = _optimize(folder, program, "-o", "model.pte", "--require=verified")
    assert (code, "lowering" in stages, torch) == (0, True, True)
    return folder, report


def test_the_same_again(ran, program, tmp_path):
    """From and to other paths, without torch: the file, byte for byte, and its report but for paths, cost and a note."""
    folder, before = ran
    (tmp_path / "copy.pt2").write_bytes(program.read_bytes())
    path = str(tmp_path / "copy.pt2")
    code, stages, after, torch = _optimize(folder, path, "-o", "again.pte", "--require=verified", "-v")
    assert (code, stages, torch) == (0, ["looking in the cache"], False)
    assert (folder / "again.pte").read_bytes() == (folder / "model.pte").read_bytes()
    assert after["input"]["path"] == after["methods"][0]["input"]["path"] == path
    assert (after["output"]["path"], after["provenance"]["command"][1]) == ("again.pte", path)
    (note,) = (note for note in after["notes"] if note.startswith("cache: "))
    assert "neither loaded nor lowered in this run" in note
    assert "whose proofs and check against the program are that run's" in note
    for report in (before, after):
        del report["cost"], report["provenance"], report["input"]["path"], report["output"]["path"]
        del report["methods"][0]["input"]["path"]
        report["notes"] = [note for note in report["notes"] if not note.startswith("cache: ")]
    assert after == before


def test_a_gate_that_fails(ran, program):
    """A limit that the file exceeds is exit code 1, the second time too, and no file."""
    for _ in range(2):
        code, stages, report, _ = _optimize(ran[0], program, "-o", "large.pte", "--max-size=1KiB")
        assert (code, "lowering" in stages) == (1, False)  # the graph is known
        assert report["checks"][0]["passed"] is False
        assert not (ran[0] / "large.pte").exists()


VERIFIED = replace(Options().gates, require=(Requirement.VERIFIED,))
OTHERS = {
    "gates": {"gates": Options().gates},
    "not verified": {"verify": False, "gates": Options().gates},
    "storage": {"vulkan": VulkanOptions(storage=Storage.BUFFER)},
    "baseline": {"baseline": BaselineChoice.NONE},
    "runtime": {"runtime": "1.4.1"},
    "code of the user's": {"imports": ("json",)},
    "pickles": {"allow_pickle": True},
    "a file before": {"keep_baseline": "before.pte"},
}


def _repeated(folder, program, into, **changes):
    options = replace(Options(cache=folder / "entries", gates=VERIFIED), **changes)
    return repeated({"forward": program}, into, options, into=into)


@pytest.mark.parametrize("what", OTHERS)
def test_what_makes_another_run(what, ran, program, tmp_path):
    """Options that count, and such as run code or write more than an entry tells; logs do not count."""
    with pytest.raises(MissedError):
        _repeated(ran[0], program, tmp_path / "m.pte", **OTHERS[what])
    assert _repeated(ran[0], program, tmp_path / "m.pte", verbose=True).report.verify.ok


def test_another_version_or_input_is_another_run(ran, program, tmp_path, monkeypatch):
    """A changed byte of the input, another method's name, a changed file of the package."""
    other = tmp_path / "other.pt2"
    other.write_bytes(program.read_bytes()[:-1] + b"\1")
    with pytest.raises(MissedError, match="no run before"):
        _repeated(ran[0], other, tmp_path / "m.pte")
    options = Options(cache=ran[0] / "entries", gates=VERIFIED)
    with pytest.raises(MissedError, match="no run before"):
        repeated({"prefill": program}, tmp_path / "m.pte", options, into=tmp_path / "m.pte")
    monkeypatch.setattr(entries, "_package", lambda: "changed")
    with pytest.raises(MissedError, match="no run before"):
        _repeated(ran[0], program, tmp_path / "m.pte")


def _signed(of):
    text = json.dumps(of).encode()
    return hashlib.sha256(text).hexdigest().encode() + b"\n" + text


def _with(path, value):
    """A change of an entry, its hash made anew: at the end of `path` stands `value`."""

    def change(of):
        *way, last = path
        for key in way:
            of = of[key]
        of[last] = value

    return change


HOSTILE = {
    "no report": _with(["report"], None),
    "a field too few": lambda of: of["report"].pop("memory"),
    "a list for a number": _with(["report", "output", "bytes"], []),
    "another size": _with(["report", "output", "bytes"], 1),
    "a path for a hash": _with(["report", "output", "sha256"], "../../model"),
    "a hash of no file": _with(["report", "output", "sha256"], "0" * 64),
    "other bytes by label": _with(["report", "ledger"], []),
    "a place that is none": _with(["report", "lookups", 0, "where"], ["forward", "0"]),
    "nested without an end": _with(["report", "notes"], json.loads("[" * 900 + "]" * 900)),
    "faults that are none": lambda of: of["report"]["loadable"]["findings"].append(
        {"kind": "format", "name": "x", "where": ["forward", None, None], "code": "c", "hint": "",
         "effect": "note", "operator": ""}
    ),
}  # fmt: skip


@pytest.fixture
def entry(ran, tmp_path):
    """A copy of the cache, and in it the entry of the run."""
    folder = tmp_path / "entries"
    folder.mkdir()
    for path in (ran[0] / "entries").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (found,) = (path for path in folder.glob("*.json") if b'"report"' in path.read_bytes())
    return found


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_entry_is_a_miss(what, entry, program, tmp_path):
    """What its hash covers and the file's bytes do not say, or what is no report."""
    of = json.loads(entry.read_bytes().partition(b"\n")[2])
    HOSTILE[what](of)
    entry.write_bytes(_signed(of))
    with pytest.raises(MissedError, match=r"damaged|gone"):
        _repeated(tmp_path, program, tmp_path / "m.pte")


@pytest.mark.parametrize("suffix", ["json", "pte"])
@pytest.mark.parametrize("size", [0, 1, 70, -9])
def test_a_cut_entry_is_a_miss(suffix, size, entry, program, tmp_path):
    """Cut anywhere, or empty, as a machine that stopped may leave it."""
    for path in entry.parent.glob(f"*.{suffix}"):
        path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(MissedError, match="damaged"):
        _repeated(tmp_path, program, tmp_path / "m.pte")


def test_reports_as_they_are_stored(ran, program, tmp_path):
    """What is read again is what was stored, numbers that JSON lacks too; a folder that cannot be written is a note."""
    report = _repeated(ran[0], program, tmp_path / "m.pte").report
    odd = replace(report.checks[0], value=float("inf"), limit=0.5)
    report = replace(report, checks=(odd, *report.checks))
    again = restored(Report, json.loads(json.dumps(stored(report))))
    assert again == report
    assert all(rendered(again, fmt) == rendered(report, fmt) for fmt in Format)
    (tmp_path / "entries").mkdir()
    (tmp_path / "entries").chmod(0o555)
    options = Options(cache=tmp_path / "entries")
    assert "cache: this run is not kept: cannot write" in kept(report, tmp_path / "m.pte", options).notes[-1]
