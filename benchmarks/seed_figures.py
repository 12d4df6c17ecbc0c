"""The figures that vkfuse started from: 418 MiB with the table folded to float, 348 MiB with it fused.

A backbone with 335 MiB of float weights behind a 33,984 x 640 embedding, int4 in groups of 32 (the sizes of PyTorch's
executorch#20381). Both files are written and measured; lowering is timed against the installed ExecuTorch in this run.

    python benchmarks/seed_figures.py
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import nn
from torchao.quantization import IntxWeightOnlyConfig, quantize_
from torchao.quantization.granularity import PerGroup

from vkfuse.lower.lowering import lower_stock
from vkfuse.options import BaselineChoice, Options, VulkanOptions
from vkfuse.pipeline import optimize
from vkfuse.program.operators import register_operators
from vkfuse.quiet import quiet

MIB = 1 << 20
VOCABULARY, WIDTH, HIDDEN = 33984, 640, 6400
TOKENS = 64


class Backbone(nn.Module):
    """An embedding and 335 MiB of float32 linears: 10 gated blocks, 14 square layers and a 256-wide head."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        wide = [m for _ in range(10) for m in (_linear(WIDTH, HIDDEN), nn.ReLU(), _linear(HIDDEN, WIDTH))]
        square = [m for _ in range(14) for m in (_linear(WIDTH, WIDTH), nn.ReLU())]
        self.body = nn.Sequential(*wide, *square, _linear(WIDTH, 256))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Token ids [batch, length] -> features [batch, length, 256]."""
        return self.body(self.embedding(tokens))


def _linear(inputs: int, outputs: int) -> nn.Linear:
    return nn.Linear(inputs, outputs, bias=False)


def exported() -> torch.export.ExportedProgram:
    """The quantized backbone, exported."""
    torch.manual_seed(0)
    model = Backbone().eval()
    config = IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=PerGroup(32))
    quantize_(model, config, lambda module, _name: isinstance(module, nn.Embedding))
    return torch.export.export(model, (torch.randint(0, VOCABULARY, (1, TOKENS)),))


def main() -> None:
    """Write both files, print their sizes, and the time of lowering against stock's."""
    with tempfile.TemporaryDirectory() as folder:
        model, output, report = (Path(folder) / name for name in ("model.pt2", "model.pte", "report.json"))
        register_operators()
        with quiet():
            program = exported()
            torch.export.save(program, model)
        command = [
            sys.executable,
            "-m",
            "vkfuse",
            "optimize",
            str(model),
            "-o",
            str(output),
            "--report",
            str(report),
        ]
        subprocess.run([*command, "--quiet"], check=True)
        measured = json.loads(report.read_text())
        with quiet():
            stock = _seconds(lambda: lower_stock({"forward": program}, VulkanOptions()))
            ours = _seconds(lambda: optimize(program, output, Options(baseline=BaselineChoice.NONE)))
    before, after = measured["baseline"]["bytes"], measured["output"]["bytes"]
    print(f"before, table folded, lookup on the CPU  {before / MIB:8.2f} MiB")
    print(f"after, fused lookup on Vulkan            {after / MIB:8.2f} MiB  {after / before:.3f} of before")
    table = measured["tables"][0]
    print(f"table {table['name']}: {table['rung']}, {table['proof']['kind']}")
    print(f"loadable: {measured['loadable']['ok']}, delegates: {measured['delegation']['subgraphs']}")
    print(f"optimize takes {ours / stock:.2f} of the time that stock's lowering takes")


def _seconds(work: object) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
