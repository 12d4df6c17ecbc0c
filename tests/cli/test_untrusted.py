"""The walls of docs/untrusted.md: its own text is run, and what it says of them is tried."""

import os
import re
import shutil
import subprocess
import sys

import pytest
from running import ROOT, Ran

RECIPE = re.search(
    r"```sh\n(sandbox\(\) \{\n.*?\n\}\n)```", (ROOT / "docs" / "untrusted.md").read_text("utf-8"), re.DOTALL
)[1]
WALLS = {  # what is tried inside: what it says
    "id -u": "65534",
    "grep -E 'Cap(Prm|Eff|Bnd)' /proc/self/status | grep -cv '0000000000000000$'": "0",
    "grep -c 'NoNewPrivs:.1' /proc/self/status": "1",
    "tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '": "lo",
    "(exec 3<> /dev/tcp/192.0.2.1/80) 2>&1 | grep -o 'Network is unreachable' | head -1": "Network is unreachable",
    "touch /x /usr/x /in/x $venv/bin/x 2>&1 | grep -c 'Read-only file system'": "4",
    "touch /out/x /tmp/x && ls /out": "x",
    "ls $outside 2>&1 | grep -c 'No such file'": "1",
}


@pytest.fixture
def sandbox(tmp_path):
    """A function: run a command inside the walls; folders `in` and `out` of the test's are /in and /out."""
    for name in ("in", "out"):
        (tmp_path / name).mkdir()
    (tmp_path / "outside").touch()

    def run(*command, venv=sys.prefix, user=()):
        variables = {
            "venv": venv,
            "in": tmp_path / "in",
            "out": tmp_path / "out",
            "outside": tmp_path / "outside",
        }
        script = "".join(f"{name}='{value}'\n" for name, value in variables.items()) + RECIPE
        line = f'{script}sandbox --setenv venv "$venv" --setenv outside "$outside" "$@"'
        ran = subprocess.run(
            [*user, "bash", "-c", line, "-", *map(str, command)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return Ran(ran.returncode, ran.stdout, ran.stderr)

    return run


def _skip_without_namespaces(user=()):
    if shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed")
    tried = subprocess.run(
        [*user, "bwrap", "--unshare-all", "--ro-bind", "/", "/", "true"], capture_output=True, check=False
    )
    if tried.returncode:
        pytest.skip(f"no namespaces here: {tried.stderr.decode().strip()}")


# Of this checkout, where the package is not installed in the environment; the test's alone.
INSIDE = "/tmp/checkout"  # noqa: S108 - a folder of the sandbox's own
CHECKOUT = ("--ro-bind", ROOT, INSIDE, "--setenv", "PYTHONPATH", INSIDE)
NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs")


@pytest.mark.parametrize("user", [(), NOBODY], ids=["this user", "an ordinary user"])
def test_walls(user, sandbox, tmp_path):
    """Not root, no capabilities, no network, read-only but for /out and /tmp, and nothing of the machine's own files."""
    if user and os.geteuid() != 0:
        pytest.skip("only root chooses a user")
    _skip_without_namespaces(user)
    if user:  # who could neither read what is root's alone nor find the test's folders
        (tmp_path / "out").chmod(0o777)
        for folder in (tmp_path, *tmp_path.parents):
            if "pytest-of-" in str(folder):  # one more, where the tests run in several processes
                folder.chmod(0o755)
        python = tmp_path / "venv" / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.write_text("#!/bin/sh\necho /usr\n")
        python.chmod(0o755)
    tried = " ; ".join(f"echo = $({command})" for command in WALLS)
    ran = sandbox("bash", "-c", tried, venv=tmp_path / "venv" if user else sys.prefix, user=user)
    assert ran.err == ""
    said = [line.removeprefix("= ") for line in ran.out.splitlines()]
    assert dict(zip(WALLS, said, strict=True)) == WALLS


def test_main_job_inside(sandbox, program, tmp_path):
    """It writes a verified file that `vkfuse report` calls loadable; a limit of time ends a run and leaves nothing."""
    _skip_without_namespaces()
    shutil.copy(program, tmp_path / "in" / "model.pt2")
    vkfuse = (*CHECKOUT, "python", "-m", "vkfuse")
    limits = ("--max-memory=8GiB", "--timeout=100s", "--baseline=none")
    ran = sandbox(*vkfuse, "optimize", "/in/model.pt2", "-o", "/out/model.pte", *limits)
    assert ran.code == 0, ran.err
    written = tmp_path / "out" / "model.pte"
    ran = sandbox(*vkfuse, "report", "/out/model.pte")
    assert (ran.code, ran.err) == (0, "")
    assert "Loadable    yes" in ran.out
    written.unlink()
    ran = sandbox(*vkfuse, "optimize", "/in/model.pt2", "-o", "/out/model.pte", "--timeout=1s")
    assert ran.code == 2
    assert "the limit of --timeout" in ran.err
    assert list((tmp_path / "out").iterdir()) == []
