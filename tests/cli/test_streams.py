"""Streams, disks, modes and locales against the table of exit codes; `vkfuse report`, which is quick, stands for all."""

import os
import re
import shutil
import stat
from collections import Counter
from pathlib import Path

import pytest
from running import OLD, ROOT

from vkfuse.errors import ExitCode

linux = pytest.mark.skipif(not Path("/dev/full").exists(), reason="devices of Linux")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root chooses a user or mounts")
SAVED = "--report old.json"

DONE = {  # what a stream is: line of sh, and nothing goes wrong
    "pipe": "cat a.pte | $vkfuse report -",
    "redirected stdin": "$vkfuse report - < a.pte",
    "closed stdin that nobody reads": "$vkfuse report a.pte <&-",
    "closed stderr": "$vkfuse report a.pte 2>&-",
    "full stderr": "$vkfuse report a.pte 2> /dev/full",
    "a pipe as an output": "$vkfuse report a.pte -q --report /dev/stdout --format json",
    "a device as an output": f"$vkfuse report a.pte --report /dev/null --report /dev/null {SAVED}",
    "quiet, so that stdout may be closed": f"$vkfuse report a.pte -q {SAVED} >&-",
    "limits": f"$vkfuse report - --timeout 1m --max-memory 1GiB {SAVED} < a.pte",
}
FAILED = {  # what is wrong: (line of sh, words of the message); exit code 2, and old.json stays
    "full stdout": (f"$vkfuse report a.pte {SAVED} > /dev/full", "stdout: No space left on device"),
    "closed stdout": (f"$vkfuse report a.pte {SAVED} >&-", "stdout: it is closed"),
    "full stdout of help": ("$vkfuse --help > /dev/full", "stdout: No space left on device"),
    "closed stdout of a version": ("$vkfuse --version >&-", "stdout: it is closed"),
    "full stdout of shaders": ("$vkfuse shader list > /dev/full", "stdout: No space left on device"),
    "closed stdin": (f"$vkfuse report - {SAVED} <&-", "stdin: it is closed"),
    "stdin of a command that failed": (f"false | $vkfuse report - {SAVED}", "stdin: Program: empty"),
    "program of a command that failed": (
        f"false | $vkfuse optimize - -o old.json {SAVED.replace('old', 'other')}",
        r"stdin: not a .pt2 file (empty)",
    ),
    "closed stdout for a file": ("$vkfuse report a.pte -q --report - >&-", "stdout: it is closed"),
    "full device": (f"$vkfuse report a.pte {SAVED} --report /dev/full", "/dev/full: No space left on device"),
    "limit on files": (f"ulimit -f 0; $vkfuse report a.pte {SAVED}", "old.json: File too large"),
    "no temporary folder": (
        f"ulimit -f 0; $vkfuse report a.pte {SAVED} --report /dev/null",
        "No usable temporary directory",
    ),
    "open files": (
        f"ulimit -n 12; $vkfuse report a.pte {SAVED} $(seq -f '--report=%g.json' 9)",
        "Too many open files",
    ),
    "write-protected": (
        f"chmod 0444 old.json; $vkfuse report a.pte {SAVED}",
        "old.json: it may not be written (mode 0444",
    ),
    "write-protected folder": (
        f"chmod 0555 .; $vkfuse report a.pte {SAVED}; code=$?; chmod 0755 .; exit $code",
        "old.json: its folder may not be written (mode 0555",
    ),
    "report over the input": (
        "$vkfuse report a.pte --report ./a.pte",
        "--report a.pte and NEW.pte a.pte are",
    ),
    "report over the base": (
        "ln -s old.json l; $vkfuse report a.pte old.json --report l",
        "--report l and BASE.pte old.json are",
    ),
    "report over the input, on stdin": (
        "$vkfuse report - --report a.pte < a.pte",
        "--report a.pte and NEW.pte - are",
    ),
    "stdout over the input": ("$vkfuse report a.pte >> a.pte", "stdout and NEW.pte a.pte are"),
    "stdout over a report": ("$vkfuse report a.pte --report r >> r", "stdout and --report r are"),
    "two reports": (f"$vkfuse report a.pte {SAVED} {SAVED}", "--report old.json and --report old.json are"),
    "model over the program": ("$vkfuse optimize a.pte -o ./a.pte", "-o a.pte and MODEL.pt2 a.pte are"),
    "model over a method's program": (
        "ln -s a.pte l; $vkfuse optimize x=old.json y=l -o a.pte",
        "-o a.pte and MODEL.pt2 l are",
    ),
    "model over the baseline": (
        "ln old.json l; $vkfuse optimize a.pte -o l --baseline old.json",
        "-o l and --baseline old.json are",
    ),
    "model over a report": ("$vkfuse optimize a.pte -o m --report m", "-o m and --report m are"),
    "report over the program": (
        "$vkfuse inspect a.pte --report a.pte",
        "--report a.pte and MODEL.pt2 a.pte are",
    ),
    "two results on stdout": ("$vkfuse report a.pte --report - | cat; exit 2", "stdout and --report - are"),
    "demo that links its files": (
        "mkdir d; ln -s model.pt2 d/model.pte; $vkfuse demo d",
        "d/model.pte and d/model.pt2 are",
    ),
    "absent": ("$vkfuse report absent.pte", "absent.pte: No such file"),
    "loop of links": ("ln -s loop loop; $vkfuse report loop", "loop: Too many levels of symbolic links"),
    "folder": ("$vkfuse report .", "cannot read .: Is a directory"),
    "empty file": (": > empty; $vkfuse report empty", "empty: "),
    "empty device": ("$vkfuse report /dev/null", "/dev/null: "),
    "endless device": ("ulimit -v 1048576; $vkfuse report /dev/zero", "/dev/zero: more than 512 MiB"),
    "endless stdin": ("ulimit -v 1048576; $vkfuse report - < /dev/zero", "stdin: more than 512 MiB"),
    "endless pipe": (
        "mkfifo pipe; cat /dev/zero > pipe & ulimit -v 1048576; $vkfuse report pipe",
        "pipe: more than 512 MiB",
    ),
    "size that is none": ("$vkfuse report a.pte --max-memory 4G", "'4G' is no size"),
    "time that is none": ("$vkfuse report a.pte --timeout soon", "'soon' is no time"),
    "tolerance that is none": ("$vkfuse verify a.pte --against a.pt2 --atol nan", "'nan' is no tolerance"),
    "number that is none": (
        "$vkfuse verify a.pte --against a.pt2 --seeds many",
        "Invalid value for '--seeds'",
    ),
    "word that is none": ("$vkfuse report a.pte --format xml", "'xml' is not one of"),
}


def _check_failed(ran, words, folder, *, usage=False):
    """Exit code 2, what is wrong and what to do, nothing on stdout that was no report, old.json as it was, no temporary."""
    assert ran.code == ExitCode.USAGE, ran
    assert words in ran.err
    assert "Traceback" not in ran.err
    assert usage or re.fullmatch(r"vkfuse: error: .+\n  hint: .+\n", ran.err), ran.err
    assert (folder / "old.json").read_bytes() == OLD
    assert [path.name for path in folder.iterdir() if path.name.startswith(".vkfuse")] == []


@linux
@pytest.mark.parametrize("what", DONE)
def test_what_ends_well(what, shell, folder):
    """Exit code 0; the report is on stdout, as it is without any of this, or in its file."""
    ran = shell(DONE[what])
    assert (ran.code, ran.err) == (0, "")
    if ran.out:
        assert re.search(r'^  Size  +16 B$|"bytes": 16', ran.out, flags=re.MULTILINE)
    if SAVED in DONE[what]:
        assert b'"bytes": 16' in (folder / "old.json").read_bytes()


@linux
@pytest.mark.parametrize("what", FAILED)
def test_what_fails(what, shell, folder):
    """Exit code 2 and its reason, in at most 1 GiB; the file that was there stays."""
    line, words = FAILED[what]
    ran = shell(line)
    _check_failed(ran, words, folder, usage=what.endswith("that is none"))
    assert (folder / "a.pte").stat().st_size == 16


@linux
def test_messages_that_nobody_gets_change_no_code(shell):
    """Closed or full, stderr takes what it can; the exit code stays the failure's."""
    for stream in (">&-", "> /dev/full"):
        assert shell(f"$vkfuse report absent.pte 2{stream}").code == ExitCode.USAGE
    assert shell("$vkfuse report a.pte <&- >&- 2>&-").code == ExitCode.USAGE


def test_reader_that_goes_away(start, folder):
    """Exit code 141 without a word; the report that was asked for as a file is there."""
    reader, writer = os.pipe()
    os.close(reader)
    process = start("report", folder / "a.pte", f"--report={folder / 'old.json'}", stdout=writer)
    os.close(writer)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (ExitCode.BROKEN_PIPE, b"")
    assert b'"bytes": 16' in (folder / "old.json").read_bytes()


@as_root
@pytest.mark.skipif(shutil.which("unshare") is None, reason="no unshare")
def test_full_disk(shell, folder):
    """A file system of 64 KiB without room: exit code 2, the old report stays whole."""
    fill = "mkdir disk && mount -t tmpfs -o size=64k none disk && cp old.json disk && dd if=/dev/zero of=disk/full"
    run = f"({fill}) 2> log; $vkfuse report a.pte --report disk/old.json; echo $?; ls -A disk; cat disk/old.json"
    ran = shell(f"unshare --mount sh -c '{run}'")
    if "permission denied" in (folder / "log").read_text():
        pytest.skip("mounting is not allowed")
    assert ran.out.splitlines()[-4:] == ["2", "full", "old.json", OLD.decode()]
    assert "cannot write disk/old.json: No space left on device" in ran.err
    assert "free some space" in ran.err


def test_read_only_file_system(shell, folder):
    """A file system that nobody may write to is named, not the mode of a folder, which allows it."""
    mounted = "mkdir disk && mount -t tmpfs -o ro,mode=777 none disk"
    ran = shell(
        f"unshare --mount sh -c '({mounted}) 2> log; $vkfuse report a.pte --report disk/new.json; echo $?'"
    )
    if "permission denied" in (folder / "log").read_text():
        pytest.skip("mounting is not allowed")
    assert ran.out.splitlines()[-1] == "2"
    assert "cannot write disk/new.json: its file system is mounted read-only" in ran.err
    assert "hint: write elsewhere" in ran.err


# Another user, who may read everything, because the interpreter may stand in a folder of root's alone.
_NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
_NOBODY += ["--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"]
MODES = {  # mode of the folder, mode of the file, code, words
    "all may write": (0o777, 0o606, 0, ""),
    "another's file": (0o777, 0o644, 2, "it may not be written (mode 0644, owner 0)"),
    "another's folder": (0o755, 0o666, 2, "its folder may not be written (mode 0755, owner 0)"),
    "protected by its owner": (0o777, 0o444, 2, "it may not be written (mode 0444"),
}


@as_root
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="no setpriv")
@pytest.mark.parametrize("what", MODES)
def test_another_user(what, shell, folder):
    """Not as root: what may not be written is refused before any work; what may be keeps its mode."""
    of_folder, of_file, code, words = MODES[what]
    folder.chmod(of_folder)
    (folder / "old.json").chmod(of_file)
    ran = shell(f"$vkfuse report a.pte {SAVED}", user=_NOBODY)
    assert stat.S_IMODE((folder / "old.json").stat().st_mode) == of_file
    if code:
        _check_failed(ran, words, folder)
    else:
        assert (ran.code, ran.err) == (0, "")
        assert b'"bytes": 16' in (folder / "old.json").read_bytes()


LOCALES = [
    {"LC_ALL": "C"},
    {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    {"PYTHONIOENCODING": "ascii"},
    {"PYTHONIOENCODING": "ascii:strict", "NO_COLOR": "1"},
]


@pytest.mark.parametrize(
    "variables", LOCALES, ids=lambda variables: " ".join(map("=".join, variables.items()))
)
def test_locales(variables, shell, folder):
    """Text comes out in any locale, escaped where it must be; so do names that are no text, and messages."""
    for name in ("modèle.pte".encode(), b"\xff.pte"):
        path = os.fsencode(folder) + b"/" + name
        os.link(folder / "a.pte", path)
    ran = shell(f"for file in mod*.pte *.pte; do $vkfuse report $file {SAVED} || exit; done", **variables)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.count("Loadable") == 4
    assert "mod" in ran.out
    ran = shell("$vkfuse report é.pte", **variables)
    assert ran.code == ExitCode.USAGE
    assert ".pte: No such file or directory" in ran.err


@pytest.mark.parametrize("command", ["report a.pte", "report --help"])
def test_columns(command, shell):
    """However wide COLUMNS says that the terminal is, reports and help are whole."""
    usual = shell(f"$vkfuse {command}", COLUMNS="110").out
    for columns in ("0", "20", "abc", "100000"):
        ran = shell(f"$vkfuse {command}", COLUMNS=columns)
        assert (ran.code, ran.err) == (0, "")
        assert Counter("".join(ran.out.split())) == Counter("".join(usual.split()))


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RuntimeError("of ours"), ExitCode.FAULT),
        (RecursionError(), ExitCode.FAULT),
        (OSError(24, "Too many open files", "a.pte"), ExitCode.USAGE),
        (FileNotFoundError(2, "No usable temporary directory found"), ExitCode.USAGE),
        (UnicodeEncodeError("ascii", "é", 0, 1, "not in range"), ExitCode.USAGE),
        (MemoryError(), ExitCode.USAGE),
        (ModuleNotFoundError("no", name="torch"), ExitCode.USAGE),
    ],
    ids=lambda value: type(value).__name__,
)
def test_boundary(error, code, vkfuse, folder, monkeypatch):
    """Whatever comes out of a command is one line, a remedy and the table's code; a fault of ours has its own."""

    def fail(*_arguments):
        raise error

    monkeypatch.setattr("vkfuse.commands.report.report_files", fail)
    ran = vkfuse("report", folder / "a.pte", "--report", folder / "old.json")
    assert (ran.code, ran.out) == (code, "")
    assert re.fullmatch(r"vkfuse: error: .+\n  hint: .+\n", ran.err)
    assert ("report the traceback" in ran.err) == (code == ExitCode.FAULT)
    assert (folder / "old.json").read_bytes() == OLD


def test_documented_codes():
    """The README's table is the enum's, word by word."""
    rows = re.findall(r"^\| (\d+) \| (.+) \|$", (ROOT / "README.md").read_text("utf-8"), flags=re.MULTILINE)
    assert [(int(code), meaning) for code, meaning in rows] == [(code, code.meaning) for code in ExitCode]
