"""A decode step with a cache on the GPU beside one of the same layers without: how much longer a token takes, on a device.

    python benchmarks/decode.py build FOLDER [--model SmolLM2-135M]
    python benchmarks/decode.py run FOLDER --runner RUNNER

`build` writes cached.pte, which is the decode file of llm.py, and plain.pte, one token of the same model without a cache,
and needs torch, transformers and vkfuse. `run` needs none of them; RUNNER is a program that is called as ``RUNNER FILE
forward INPUTS OUTPUTS`` and prints ``call N T ms`` for each call of one loaded method, INPUTS as `packed` packs them.
It prints the medians, and their ratio.
"""

import argparse
import os
import re
import statistics
import struct
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

TOKENS = 160
WARM = 10  # calls that do not count: the first one records the commands
ROUNDS = 3
WORDS = 4096
NAMES = ("plain", "cached")
LONG = 4  # ExecuTorch's code of int64
Call = Sequence[tuple[tuple[int, ...], tuple[int, ...]]]  # sizes and values of each input


def build(folder: Path, name: str, runtime: str | None) -> None:
    """Write both files."""
    import llm  # noqa: PLC0415 - not needed to run
    import torch  # noqa: PLC0415 - likewise

    import vkfuse  # noqa: PLC0415 - likewise

    class Plain(torch.nn.Module):
        def __init__(self, model: Any) -> None:
            super().__init__()
            self.model = model

        def forward(self, token: Any, position: Any) -> Any:
            return self.model(input_ids=token, position_ids=position[None], use_cache=False).logits

    folder.mkdir(parents=True, exist_ok=True)
    with torch.no_grad():
        inputs = torch.zeros((1, 1), dtype=torch.long), torch.tensor([0])
        plain = torch.export.export(Plain(llm.model(name)), inputs)
    for kind, program in zip(NAMES, (plain, llm.decode(llm.model(name))), strict=True):
        made = vkfuse.optimize(
            program, folder / f"{kind}.pte", baseline="none", verify=False, runtime=runtime
        ).report
        print(f"{kind}: {made.output.bytes} bytes, {made.delegation.crossings} crossings")


def packed(calls: Sequence[Call]) -> bytes:
    """Calls of int64 inputs, each (sizes, values), as a runner reads them."""
    parts = [struct.pack("<I", len(calls))]
    for call in calls:
        parts.append(struct.pack("<I", len(call)))
        for sizes, values in call:
            parts.append(struct.pack("<BiI", 1, LONG, len(sizes)))
            parts.append(struct.pack(f"<{len(sizes)}q{len(values)}q", *sizes, *values))
    return b"".join(parts)


def run(folder: Path, runner: str) -> None:
    """Time both files in turn, and print what a token takes."""
    times: dict[str, list[float]] = {name: [] for name in NAMES}
    with tempfile.TemporaryDirectory() as temporary:
        inputs, outputs = Path(temporary) / "in.bin", Path(temporary) / "out.bin"
        inputs.write_bytes(packed([(((1, 1), (at * 7 % WORDS,)), ((1,), (at,))) for at in range(TOKENS)]))
        for _ in range(ROUNDS):
            for name in NAMES:
                command = [runner, folder / f"{name}.pte", "forward", inputs, outputs]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                found = re.findall(r"call \d+ ([\d.]+) ms", done.stdout + done.stderr)
                times[name] += map(float, found[WARM:])
    medians = {name: statistics.median(each) for name, each in times.items()}
    print(", ".join(f"{name} {median:.2f} ms" for name, median in medians.items()))
    print(f"with the cache {medians['cached'] / medians['plain']:.2f} times as long")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["build", "run"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="SmolLM2-135M", help="a name of llm.py's")
    parser.add_argument("--runtime", help="the runner's version; by default that of the installed ExecuTorch")
    parser.add_argument("--runner", default=os.environ.get("RUNNER"))
    given = parser.parse_args()
    if given.what == "build":
        build(given.folder, given.model, given.runtime)
    else:
        run(given.folder, given.runner)


if __name__ == "__main__":
    main()
