"""Gates: what a user asks of a file, on the command line, in a file of settings, from Python."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vkfuse.commands.report import report_files
from vkfuse.errors import InputError, VkfuseError
from vkfuse.gates import Gates, Growth, parse_growth
from vkfuse.options import Options
from vkfuse.report import model
from vkfuse.report.checks import GatesFailedError, glob, passed, require_passed
from vkfuse.settings import find_settings

ROOT = Path(__file__).parents[2]


def _run(folder, *arguments):
    """Run `vkfuse report` in a folder: exit code, stdout, stderr."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "vkfuse", "report", *map(str, arguments)]
    ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return ran.returncode, ran.stdout, ran.stderr


def test_each_gate(files):
    """Value, limit and verdict of every gate on a file that is smaller than the one before and adds on the CPU."""
    gates = Gates(
        max_size="10KiB",
        max_growth="-40%",
        max_growth_of={"constant": "0", "*linear_q4gsw*": "2KiB", "8dc50366*": "1%", "nowhere": "1%"},
        require=["fused", "delegated", "loadable"],
        forbid_cpu_op=["aten::add*", "aten.embedding.*"],
        exit_code=True,
    )
    report = report_files(files / "tied.pte", files / "folded.pte", gates=gates)
    rows = [(c.name, c.passed, c.value, c.limit, c.unit) for c in report.checks]
    growth = 100 * (10_368 - 17_536) / 17_536
    assert rows == [
        ("max-size", False, 10_368, 10_240, "bytes"),
        ("max-growth", True, pytest.approx(growth), -40.0, "%"),
        ("max-growth-of constant", True, 5_376 - 16_384, 0, "bytes"),
        ("max-growth-of *linear_q4gsw*", False, 2_560, 2_048, "bytes"),
        ("max-growth-of 8dc50366*", False, float("inf"), 1.0, "%"),
        ("max-growth-of nowhere", False, "not checked", 1.0, "%"),
        ("require fused", True, 0, 0, ""),
        ("require delegated", False, 1, 0, ""),
        ("require loadable", True, 0, 0, ""),
        ("forbid-cpu-op aten::add*", False, 1, 0, ""),
        ("forbid-cpu-op aten.embedding.*", True, 0, 0, ""),
        ("exit-code", False, "differs", "identical", ""),
    ]
    with pytest.raises(GatesFailedError, match="7 of 12 checks failed") as failed:
        require_passed(report)
    assert "max-size: 0.010 MiB (10,368 bytes), limit 0.010 MiB" not in failed.value.message
    assert "max-size: 10,368 B, limit 10,240 B\n" in failed.value.message
    assert (failed.value.exit_code, failed.value.report) == (1, report)


@pytest.mark.parametrize(
    ("name", "requirement", "detail"),
    [
        ("unfused", "fused", "not fused: "),
        ("unfused", "loadable", "1.5.1: torchao.dequantize_affine.default"),
        ("rows", "loadable", "1.5.1: et_vk.embedding_q4gsw.default"),
        ("mixed", "fused", "there is no quantized table"),
        ("folded", "delegated", "on the CPU: aten::embedding.out"),
    ],
)
def test_requirements_say_what_fails(files, name, requirement, detail):
    """A requirement that fails names what it is about; what would be wrong is as little loadable as what would not load."""
    (check,) = report_files(files / f"{name}.pte", gates=Gates(require=requirement)).checks
    assert not check.passed
    assert check.detail.startswith(detail)


@pytest.mark.parametrize(
    ("verify", "value", "ok"),
    [
        (None, "not checked", False),
        (model.Verify(ran=True, ok=True, max_abs_error=0.0, max_rel_error=0.0), 0, True),
        (model.Verify(ran=True, ok=False, max_abs_error=1.0, max_rel_error=1.0), 1, False),
        (model.Verify(ran=False, ok=None, max_abs_error=None, max_rel_error=None), "not checked", False),
        (model.Verify(ran=True, ok=None, max_abs_error=0.0, max_rel_error=0.0), "not checked", False),
    ],
)
def test_what_was_not_run_is_not_verified(full, verify, value, ok):
    """Only a run that was right passes; what could not be executed is "not checked" and fails."""
    from vkfuse.report.checks import _REQUIREMENTS  # noqa: PLC0415 - looks inside

    check = _REQUIREMENTS["verified"](replace(full, verify=verify))
    assert (check.value, check.passed) == (value, ok)


def test_exact_wants_a_proof_of_every_table(full):
    """A table that was rounded, or not proved, is named."""
    from vkfuse.report.checks import _exact  # noqa: PLC0415 - looks inside

    assert (_exact(full).passed, _exact(full).value) == (False, 2)
    assert "very_long_projection_name.weight, pos.weight" in _exact(full).detail
    assert _exact(replace(full, tables=full.tables[:1])).passed


def test_gates_that_a_run_cannot_answer():
    """Growth without a file before, and checks that need the program, are refused before anything is read."""
    for gates, hint in (
        (Gates(max_growth="1%"), "BASE.pte"),
        (Gates(exit_code=True), "BASE.pte"),
        (Gates(require="verified"), "runs nothing"),
        (Gates(exact=True), "runs nothing"),
    ):
        with pytest.raises(VkfuseError, match=hint):
            report_files("nowhere.pte", gates=gates)
    for changes, hint in (
        ({"baseline": "none", "max_growth": "1%"}, "baseline"),
        ({"verify": False, "require": "verified"}, "--no-verify"),
        ({"fp16": True, "exact": True}, "--fp16"),
    ):
        with pytest.raises(VkfuseError, match=hint):
            Options().changed(changes).check_gates()
    Options().changed({"max_growth": "1%", "require": "verified", "exact": True}).check_gates()


def test_the_command_fails_and_says_why(files, tmp_path):
    """Exit code 1, the report on stdout and in the files, each failure with value and limit on stderr."""
    pair = (files / "tied.pte", files / "folded.pte")
    gates = ("--max-size=10KiB", "--forbid-cpu-op", "aten::mul*", "--require=loadable", "--max-growth", "-1%")
    code, out, err = _run(tmp_path, *pair, *gates, "--report", "r.json")
    assert code == 1
    assert err == "vkfuse: error: 1 of 4 checks failed\n  max-size: 10,368 B, limit 10,240 B\n"
    assert "FAILED: max-size: 10,368 B, limit 10,240 B" in out
    checks = json.loads((tmp_path / "r.json").read_text())["checks"]
    assert [(check["name"], check["passed"]) for check in checks] == [
        ("max-size", False),
        ("max-growth", True),
        ("require loadable", True),
        ("forbid-cpu-op aten::mul*", True),
    ]
    assert _run(tmp_path, *pair, *gates[1:], "-q") == (0, "", "")
    assert _run(tmp_path, pair[0], pair[0], "--exit-code", "-q")[0] == 0


def test_settings_stand_in_a_file(files, tmp_path):
    """One line in CI: a file in the folder or above, up to the repository's root; options go before what it says."""
    (tmp_path / "pyproject.toml").write_text('[tool.vkfuse]\nmax-size = "1KiB"\n')
    repository, below = tmp_path / "repository", tmp_path / "repository" / "a" / "b"
    below.mkdir(parents=True)
    (below / "pyproject.toml").write_text('[project]\nname = "other"\n')
    model_file = files / "tied.pte"
    assert _run(below, model_file, "-q")[0] == 1
    assert _run(below, model_file, "-q", "--no-config")[0] == 0
    assert _run(below, model_file, "-q", "--max-size=1MiB")[0] == 0
    (repository / ".git").mkdir()
    assert _run(below, model_file, "-q")[0] == 0
    (repository / "vkfuse.toml").write_text(
        'max-size = "1MiB"\nrequire = ["delegated"]\n[optimize]\nrequire = ["verified"]\n'
        '[report]\nforbid-cpu-op = ["aten::add*"]\n'
    )
    code, _, err = _run(below, model_file, "-q")
    assert (code, err.splitlines()[0]) == (1, "vkfuse: error: 2 of 3 checks failed")
    assert dict(find_settings(below, "optimize").gates) == {"max_size": "1MiB", "require": ["verified"]}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("max_size = 3", "unknown key max_size"),
        ("[optimize]\nmax-sise = 3", "unknown key optimize.max-sise"),
        ("[verify]\nmax-size = 3", "unknown key verify"),
        ("[tool.vkfuse]\nmax-size = 3", "unknown key tool"),
        ("max-size = true", "max-size: the option max_size is True"),
        ('max-size = "3 apples"', "max-size: the option max_size: '3 apples' is no size"),
        ('require = ["small"]', "require: the option require is 'small'"),
        ("max-size = -3", "max-size: the option max-size is -3"),
        ("max-growth = 0", "max-growth: the option max_growth is 0"),
        ("max-growth-of = 3", "max-growth-of: the option max_growth_of is 3"),
        ('max-growth-of = {program = "x"}', "max-growth-of: the option max_growth_of of program: 'x'"),
        ("report = 3", "report is no table"),
        ("runtime = 1.5", "runtime: the option runtime is 1.5"),
        ("max-size = ", "cannot read"),
    ],
)
def test_settings_are_checked(tmp_path, text, words):
    """A key that does not exist, in any table, and a value of another type: an error with the file and the key."""
    (tmp_path / "vkfuse.toml").write_text(text)
    with pytest.raises(InputError) as failed:
        find_settings(tmp_path, "report")
    assert str(tmp_path / "vkfuse.toml") in failed.value.message
    assert words in failed.value.message


def test_a_limit_that_is_no_text_says_how_to_write_it(tmp_path):
    """Who writes a number where a growth stands is told of the text, not only of the type."""
    (tmp_path / "vkfuse.toml").write_text("max-growth = 0")
    with pytest.raises(InputError) as failed:
        find_settings(tmp_path, "report")
    assert "or text as on the command line" in failed.value.hint


@pytest.mark.parametrize("text", ["tool = 3", "[tool]\nvkfuse = 3", "[tool]\nvkfuse = []"])
def test_a_shared_file_has_tables(tmp_path, text):
    """What stands in the place of a table of pyproject.toml is an error that names the file."""
    (tmp_path / "pyproject.toml").write_text(text)
    with pytest.raises(InputError, match=r"pyproject\.toml: tool(\.vkfuse)? is no table"):
        find_settings(tmp_path, "report")


def test_settings_that_cannot_be_read_are_no_settings(tmp_path):
    """Checks are never off in silence: a loop of links, a folder, a pipe and a text nested without end are errors."""
    path = tmp_path / "vkfuse.toml"
    for make, undo in (
        (lambda: path.symlink_to(path), path.unlink),
        (lambda: path.symlink_to("nowhere"), path.unlink),
        (path.mkdir, path.rmdir),
        (lambda: os.mkfifo(path), path.unlink),
        (lambda: path.write_text("x = " + "[" * 100_000), path.unlink),
    ):
        make()
        with pytest.raises(InputError, match=r"cannot read .*vkfuse\.toml"):
            find_settings(tmp_path, "report")
        undo()


@pytest.mark.parametrize(
    ("text", "growth"),
    [
        ("1%", Growth(1.0, "%")),
        ("0.5%", Growth(0.5, "%")),
        ("-10%", Growth(-10.0, "%")),
        ("500KiB", Growth(512_000, "bytes")),
        ("-1MiB", Growth(-(1 << 20), "bytes")),
        ("0", Growth(0, "bytes")),
    ],
)
def test_growth_is_a_share_or_a_size(text, growth):
    """What people write, and what is written of it."""
    assert parse_growth(text) == growth
    assert parse_growth(str(growth)) == growth


@pytest.mark.parametrize("text", ["", "%", "1x", "--1%", "nan%", "inf", "1 %", "1e3%", "1_0%", "+1%", "٣%"])
def test_no_growth(text):
    """What is no number of percent or bytes."""
    with pytest.raises(ValueError, match="is no growth"):
        parse_growth(text)


@given(st.text(), st.text())
def test_patterns_have_two_wildcards(head, tail):
    """`*` and `?` stand for others, all else for itself: labels have brackets."""
    plain = head.replace("*", "").replace("?", "")
    assert glob(plain)(plain)
    assert glob(f"{plain}*")(plain + tail)
    assert not glob(f"{plain}?")(plain)
    assert not glob(plain)(plain + "x")


def test_patterns_are_matched_in_time():
    """Many stars end at once on a long name that they do not match; one of a name is still found."""
    many = glob("*a" * 40 + "*z")
    assert not many("a" * 2_000)
    assert many("a" * 2_000 + "z")


def test_a_pattern_says_something():
    """An empty pattern matches no kernel: a gate that could not fail is refused."""
    with pytest.raises(VkfuseError, match="forbid-cpu-op"):
        Gates(forbid_cpu_op=("aten*", ""))


def test_no_gates_no_checks(files):
    """Who asks for nothing gets nothing, and passes."""
    report = report_files(files / "unfused.pte")
    assert report.checks == ()
    assert passed(report)
