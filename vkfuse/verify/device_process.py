"""A file run by the installed ExecuTorch, in a process of its own: `python -m vkfuse.verify.device_process FOLDER METHOD`.

FOLDER holds `model.pte` and `0.pt`, `1.pt`, ..., each the flat inputs of calls on a method loaded anew. A line
of JSON on stdout for each thing that happened: {"backends": [...]}, {"outputs": n} once those of the last call are in
`n.out`, {"error": "..."}. A runtime that aborts ends the process; the lines before tell where.
"""

import json
import sys
from pathlib import Path
from typing import Final

import torch

BACKEND: Final = "VulkanBackend"


def main(folder: Path, method: str) -> None:
    """Run every sequence of calls, up to the first that fails."""
    from executorch.runtime import Runtime  # noqa: PLC0415 - in this process only

    runtime = Runtime.get()
    registry = runtime.backend_registry
    _say(backends=sorted(registry.registered_backend_names))
    if not registry.is_available(BACKEND):
        return
    for number in range(len([*folder.glob("[0-9]*.pt")])):
        calls = torch.load(folder / f"{number}.pt", weights_only=True)
        try:
            loaded = runtime.load_program(folder / "model.pte").load_method(method)
            outputs = [[*loaded.execute(inputs)] for inputs in calls if loaded is not None][-1]
        except Exception as error:  # noqa: BLE001 - the runtime raises RuntimeError, a delegate anything
            _say(error=f"{type(error).__name__}: {error}")
            return
        torch.save(outputs, folder / f"{number}.out")
        _say(outputs=number)


def _say(**what: object) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
