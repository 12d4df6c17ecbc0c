"""Runs the steps of a workflow or of an action as a runner of GitHub's does: expressions, environment, outputs."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
EXPRESSION = re.compile(r"\$\{\{\s*(.*?)\s*\}\}")


def shim(folder):
    """A folder for PATH in which `vkfuse` and `python3` are this checkout's."""
    folder.mkdir()
    python = f'PYTHONPATH="{ROOT}" exec "{sys.executable}"'
    start = "import sys; sys.argv[0] = 'vkfuse'; from vkfuse.cli import main; main()"
    for name, line in (("vkfuse", f'{python} -c "{start}" "$@"'), ("python3", f'{python} "$@"')):
        path = folder / name
        path.write_text(f"#!/bin/sh\n{line}\n")
        path.chmod(0o755)
    return folder


class Run:
    """A run in a folder: the context of expressions, the environment, and what steps printed."""

    def __init__(self, folder, path, inputs=(), **environment):
        self.folder = folder
        self.context = {"github.token": "token"}
        given = {f"inputs.{name}": self._value(value) for name, value in dict(inputs).items()}
        self.context |= given
        self.files = {name: folder / name.lower() for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
        self.environment = {
            **os.environ,
            "PATH": f"{path}:{os.environ['PATH']}",
            "GITHUB_ACTION_PATH": str(ROOT),
            **{name: str(file) for name, file in self.files.items()},
            **environment,
        }
        self.printed = ""

    def steps(self, steps, skip=()):
        """Run steps one after the other; gives the code of the first that fails."""
        for step in steps:
            if "run" not in step or step.get("name") in skip or not self._wanted(step):
                continue
            code = self._step(step)
            if code:
                return code
        return 0

    def _wanted(self, step):
        """Whether the condition holds; the only form is `name == 'value'`."""
        if "if" not in step:
            return True
        name, value = re.fullmatch(r"(\S+) == '(.*)'", step["if"]).groups()
        return self.context[name] == value

    def _step(self, step):
        assert "${{" not in step["run"], "an expression in a script is an injection"
        given = {name: self._value(value) for name, value in step.get("env", {}).items()}
        self.files["GITHUB_OUTPUT"].write_text("")
        ran = subprocess.run(
            ["/bin/bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
            cwd=self.folder,
            env={**self.environment, **given},
            capture_output=True,
            text=True,
            check=False,
        )
        self.printed += ran.stdout + ran.stderr
        for line in self.files["GITHUB_OUTPUT"].read_text().splitlines():
            name, _, value = line.partition("=")
            self.context[f"steps.{step['id']}.outputs.{name}"] = value
        return ran.returncode

    def _value(self, text):
        return EXPRESSION.sub(lambda found: self.context[found[1]], str(text))
