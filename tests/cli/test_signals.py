"""Signals, limits of time and memory, and what is left when a run is ended: nothing, after the next run at the latest."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from running import OLD, Ran, environment

from vkfuse.errors import ExitCode
from vkfuse.quantities import parse_seconds, parse_size
from vkfuse.signals import SIGNALS

linux = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc, as Linux has it")
INTERRUPTED = b"vkfuse: error: interrupted\n  hint: nothing was written\n"


def _wait_for(condition, seconds=30):
    """Until `condition()` gives something, which is returned."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.02)
    return found


def _temporaries(folder):
    return [path for path in folder.iterdir() if path.name.startswith(".vkfuse")]


def _heed():
    """Have SIGHUP as a shell gives it, where the tests themselves run under nohup."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture
def waiting(start, folder):
    """A function: start `vkfuse report` on a pipe that nobody writes to; it waits, with its temporary beside old.json."""
    os.mkfifo(folder / "pipe")

    def run(*options, **settings):
        before = len(_temporaries(folder))
        settings.setdefault("preexec_fn", _heed)
        process = start("report", folder / "pipe", f"--report={folder}/old.json", *options, **settings)
        _wait_for(lambda: process.poll() is not None or len(_temporaries(folder)) > before)
        return process

    return run


def _check_nothing_is_left(folder):
    assert (folder / "old.json").read_bytes() == OLD
    assert _temporaries(folder) == []


@pytest.mark.parametrize("options", [(), ("--timeout=1m",)], ids=["alone", "watched"])
@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_signals(number, options, waiting, folder):
    """Exit code 130 and one line, whichever signal it is; a watched run has it from its parent."""
    process = waiting(*options)
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (ExitCode.INTERRUPTED, b"", INTERRUPTED)
    _check_nothing_is_left(folder)


def test_several_signals(waiting, folder):
    """A second one while the first is cleaned up after changes nothing."""
    process = waiting()
    for number in (*SIGNALS, *SIGNALS):
        process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (ExitCode.INTERRUPTED, b"", INTERRUPTED)
    _check_nothing_is_left(folder)


def test_nohup(waiting, folder):
    """A run that was told to ignore SIGHUP goes on."""
    process = waiting(preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    process.send_signal(signal.SIGHUP)
    (folder / "pipe").write_bytes((folder / "a.pte").read_bytes())
    process.communicate(timeout=30)
    assert process.returncode == 0
    assert b'"bytes": 16' in (folder / "old.json").read_bytes()


def test_killed_run_is_collected(waiting, shell, folder):
    """SIGKILL leaves the temporary; the next run that writes there takes it, unless another run still needs it."""
    killed, running = waiting(), waiting()
    killed.kill()
    killed.communicate(timeout=30)
    assert len(_temporaries(folder)) == 2
    assert shell("$vkfuse report a.pte -q --report other.json").code == 0
    assert len(_temporaries(folder)) == 1
    running.terminate()
    running.communicate(timeout=30)
    _check_nothing_is_left(folder)


SIZES = {
    "1": 1,
    "512 MiB": 512 << 20,
    "4GiB": 4 << 30,
    "1.5GB": 1_500_000_000,
    "2kB": 2000,
    "2KB": 2000,
    "3KiB": 3072,
    "1TiB": 1 << 40,
}
TIMES = {"90": 90, "0.5": 0.5, "90s": 90, "5m": 300, "1.5h": 5400}
NO_SIZE = [
    "",
    "0",
    "-1",
    "4G",
    "4gib",
    "1e9",
    "inf",
    "nan",
    "GiB",
    "1 000",
    "4 GiB ",
    "\u0664GiB",
    "9" * 400,
    "0.1",
]
NO_TIME = ["", "0", "-1", "1d", "5 m", "soon", "inf", "nan", "1e9", "5min", "9" * 400]


def test_sizes_and_times():
    """What is a size or a time, and what is neither: no guess at what `4G` means."""
    assert {text: parse_size(text) for text in SIZES} == SIZES
    assert {text: parse_seconds(text) for text in TIMES} == TIMES
    for parse, texts in ((parse_size, NO_SIZE), (parse_seconds, NO_TIME)):
        for text in texts:
            with pytest.raises(ValueError, match=f"^{re.escape(repr(text))} is no "):
                parse(text)


def test_timeout(waiting, folder):
    """Exit code 2, the limit and its option; nothing is left."""
    process, started = waiting("--timeout=0.5s"), time.monotonic()
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (ExitCode.USAGE, b"")
    assert err == (
        b"vkfuse: error: not done after 0.5 s, the limit of --timeout\n  hint: allow more with --timeout\n"
    )
    assert time.monotonic() - started < 5
    _check_nothing_is_left(folder)


@linux
def test_memory(shell, folder):
    """A stdin without an end is read into memory: the limit ends it before the reader's own bound does.

    No more comes than 130 MB, so that a busy machine, which looks late, sees no more either.
    """
    endless = "head -c 130000000 /dev/zero; while echo; do sleep 0.1; done 2>&-"
    ran = shell(f"({endless}) | $vkfuse report - --max-memory 100MiB --report old.json")
    assert (ran.code, ran.out) == (ExitCode.USAGE, "")
    assert re.fullmatch(
        r"vkfuse: error: took 1\d\d\.\d MiB of memory, more than the 100\.0 MiB of --max-memory\n"
        r"  hint: allow more with --max-memory\n",
        ran.err,
    )
    _check_nothing_is_left(folder)


def _watched(work, limits="seconds=1", **options):
    """Run Python under limits, as a command does: `work` in the child, in the place of a command."""
    code = (
        "import ctypes, os, signal, subprocess, sys, time; from vkfuse import cli; from vkfuse.limits import *\n"
        "from vkfuse.errors import *\n"
        f"def app(): lift = enforce(Limits({limits}), []); {work}\n"
        "cli.app = app; cli.main()"
    )
    command = [sys.executable, "-c", code]
    ran = subprocess.run(command, capture_output=True, env=environment(), timeout=30, check=False, **options)
    return Ran(ran.returncode, ran.stdout.decode(), ran.stderr.decode())


TOOK = "took [0-9.]+ MiB of memory, more than the 200.0 MiB"
ENDED = {  # what the run does: (code, limits, words)
    "a C call that holds the lock": ("ctypes.PyDLL(None).sleep(20)", "seconds=0.5", "not done after 0.5 s"),
    "deaf to signals": (
        "[signal.signal(n, signal.SIG_IGN) for n in (1, 2, 15)]; time.sleep(20)",
        "seconds=0.5",
        "not done",
    ),
    "memory": ("held = bytearray(b'x') * (1 << 29); time.sleep(20)", "memory=200 << 20", TOOK),
    "memory of its children": (
        "subprocess.run([sys.executable, '-c', 'held = bytearray(b\"x\") * (1 << 29); input()'], stdin=-1)",
        "memory=200 << 20",
        TOOK,
    ),
}


@linux
@pytest.mark.parametrize("what", ENDED)
def test_whatever_it_is_doing(what):
    """The parent ends a run that no handler or thread of its own could."""
    work, limits, words = ENDED[what]
    started = time.monotonic()
    ran = _watched(work, limits)
    assert (ran.code, ran.out) == (ExitCode.USAGE, "")
    assert re.search(words, ran.err)
    assert time.monotonic() - started < 10


def test_exit_codes_of_a_watched_run():
    """The code is the child's, a signal's as shells count it; what is past its limits when it publishes is not ended."""
    assert _watched("sys.exit(3)").code == 3
    assert _watched("raise LoweringError('no')").err == "vkfuse: error: no\n"
    ran = _watched("os.kill(os.getpid(), signal.SIGKILL)")
    assert (ran.code, ran.err) == (128 + 9, "vkfuse: error: ended by SIGKILL\n")
    ran = _watched("lift(); time.sleep(0.5); print('done')", "seconds=0.2")
    assert (ran.code, ran.out) == (0, "done\n")
    assert (
        _watched(
            "print(os.getppid())",
            "",
        ).out
        == f"{os.getpid()}\n"
    )


@linux
def test_killed_parent_takes_the_run_with_it(waiting, shell, folder):
    """No run goes on unwatched; what it leaves is collected."""
    process = waiting("--timeout=1m")
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.kill()
    process.communicate(timeout=30)
    _wait_for(lambda: not Path(f"/proc/{children[0]}").exists())
    assert shell("$vkfuse report a.pte -q --report other.json").code == 0
    _check_nothing_is_left(folder)


def test_optimize_in_limits(start, program, folder):
    """The main job: ended while torch is imported; and the limit of memory is known to the run."""
    process = start("optimize", program, "-o", folder / "old.json", "--timeout=2")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (ExitCode.USAGE, b"")
    assert err.endswith(b"not done after 2 s, the limit of --timeout\n  hint: allow more with --timeout\n")
    _check_nothing_is_left(folder)
