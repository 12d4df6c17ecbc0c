"""The whole file on a device: by the installed ExecuTorch where it has the Vulkan backend, in a child process."""

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import torch

from vkfuse.pte.model import PteFile
from vkfuse.verify.device_process import BACKEND
from vkfuse.verify.steps import Argument

NO_BACKEND: Final = (
    f"the whole file was not run: the installed ExecuTorch has no {BACKEND}; build it with "
    "CMAKE_ARGS=-DEXECUTORCH_BUILD_VULKAN=ON (docs/verify.md)"
)
_LONGEST: Final = 900  # seconds
_SHOWN: Final = 300  # characters of what the runtime says when it dies


@dataclass(frozen=True, slots=True, kw_only=True)
class WholeRun:
    """The last outputs of each case, as many as came back, and what ended the process before the others did."""

    outputs: tuple[tuple[Any, ...], ...] = ()
    failure: str = ""
    registered: bool = True


def run_whole(pte: PteFile, method: str, cases: Sequence[Sequence[Sequence[Argument]]]) -> WholeRun:
    """Run the calls of each case on a method loaded anew; an abort of the runtime is a failure."""
    with TemporaryDirectory(prefix="vkfuse-") as name:
        folder = Path(name)
        (folder / "model.pte").write_bytes(pte.data)
        for number, calls in enumerate(cases):
            torch.save([*map(list, calls)], folder / f"{number}.pt")
        said, failure = _said(folder, method)
        backends = next((line["backends"] for line in said if "backends" in line), None)
        if backends is not None and BACKEND not in backends:
            return WholeRun(registered=False)
        failure = next((line["error"] for line in said if "error" in line), failure)
        done = [line["outputs"] for line in said if "outputs" in line]
        outputs = tuple(tuple(torch.load(folder / f"{n}.out", weights_only=True)) for n in done)
    if len(outputs) < len(cases) and not failure:
        failure = "the process ended without a word"
    return WholeRun(outputs=outputs, failure=failure)


def _said(folder: Path, method: str) -> tuple[list[dict[str, Any]], str]:
    """Return the lines of the child, and how it ended where that is no good end."""
    command = [sys.executable, "-m", "vkfuse.verify.device_process", str(folder), method]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=_LONGEST, check=False)  # noqa: S603 - our own module
    except subprocess.TimeoutExpired as error:
        return _lines(error.stdout), f"no end within {_LONGEST} s"
    return _lines(ended.stdout), _end(ended.returncode, ended.stderr)


def _lines(text: str | bytes | None) -> list[dict[str, Any]]:
    given = text.decode("utf-8", "replace") if isinstance(text, bytes) else text or ""
    return [json.loads(line) for line in given.splitlines() if line.startswith("{")]


def _end(code: int, log: str) -> str:
    """Say how a process ended: by which signal, and its last words."""
    if code == 0:
        return ""
    how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    return f"the process ended with {how}: {' '.join(log.split())[-_SHOWN:]}"
