"""Run the command line: in this process where an error is expected, in its own where streams and signals matter."""

import signal
import subprocess
import sys

import pytest
from running import OLD, SMALL_PTE, Ran, environment

from vkfuse.cli import main
from vkfuse.signals import SIGNALS


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


@pytest.fixture
def folder(tmp_path):
    """A folder with a.pte, which `vkfuse report` reads in no time, and old.json, to be replaced or not."""
    (tmp_path / "a.pte").write_bytes(SMALL_PTE)
    (tmp_path / "old.json").write_bytes(OLD)
    return tmp_path


@pytest.fixture
def shell(folder):
    """A function: run a line of sh in the folder, where $vkfuse is the command line; `user` is root's to choose."""

    def run(line, *, user=(), **variables):
        env = {
            **environment(),
            "PYTHONDONTWRITEBYTECODE": "1",
            "vkfuse": f"{sys.executable} -m vkfuse",
            **variables,
        }
        ran = subprocess.run(
            [*user, "sh", "-c", line], cwd=folder, env=env, capture_output=True, timeout=60, check=False
        )
        return Ran(
            ran.returncode, *(text.decode(errors="surrogateescape") for text in (ran.stdout, ran.stderr))
        )

    return run


@pytest.fixture(scope="session")
def start():
    """A function: start the command line as a process of its own, streams as bytes."""

    def run(*arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, **options):
        command = [sys.executable, "-m", "vkfuse", *map(str, arguments)]
        return subprocess.Popen(
            command, stdin=stdin, stdout=stdout, stderr=subprocess.PIPE, env=environment(), **options
        )

    return run
