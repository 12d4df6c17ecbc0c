"""Run the command line: in this process where an error is expected, in its own where streams and signals matter."""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from vkfuse.cli import main
from vkfuse.signals import SIGNALS

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Ran:
    """What a command left behind."""

    code: int
    out: str
    err: str


@pytest.fixture
def vkfuse(monkeypatch, capsys):
    """A function: run the command line in this process, signal handlers put back afterwards."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["vkfuse", *map(str, arguments)])
        handlers = {number: signal.getsignal(number) for number in SIGNALS}
        capsys.readouterr()
        try:
            with pytest.raises(SystemExit) as left:
                main()
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        out, err = capsys.readouterr()
        return Ran(left.value.code or 0, out, err)

    return run


def environment():
    """The environment of a subprocess: this checkout first, nothing of the terminal."""
    kept = {k: v for k, v in os.environ.items() if k not in {"COLUMNS", "FORCE_COLOR", "NO_COLOR"}}
    return {**kept, "PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="session")
def start():
    """A function: start the command line as a process of its own, streams as bytes."""

    def run(*arguments, stdin=subprocess.DEVNULL):
        command = [sys.executable, "-m", "vkfuse", *map(str, arguments)]
        return subprocess.Popen(
            command, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
        )

    return run
