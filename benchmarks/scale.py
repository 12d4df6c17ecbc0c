"""Time and memory of `vkfuse optimize` against layers and rows.

    python benchmarks/scale.py [--layers 2 8 16 32] [--rows 32768 131072 524288]

Layers: a Llama with 256 columns and random weights, 4-bit lookups and 8da4w linears, one token with a cache of 128. Rows: a
lookup tied to its head, 512 columns in 4 bits. Each program is exported in a process of its own and optimized in another
with its check and without a baseline; what that takes beside the smallest one's time is what grows.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import llm

MIB: Final = 1 << 20
SHAPE: Final = {
    "vocab_size": 4096,
    "hidden_size": 256,
    "intermediate_size": 768,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
}


def layers(count: int) -> Any:
    """A Llama of so many layers, one token with a cache."""
    llm.SHAPES = {"scale": ("Llama", {**SHAPE, "num_hidden_layers": count})}
    llm.CACHE = 128
    return llm.decode(llm.model("scale"))


def rows(count: int) -> Any:
    """A lookup and a head over one table."""
    import torch  # noqa: PLC0415 - only where programs are built
    from torch import nn  # noqa: PLC0415
    from torchao.quantization import IntxWeightOnlyConfig, quantize_  # noqa: PLC0415
    from torchao.quantization.granularity import PerGroup  # noqa: PLC0415

    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.head = nn.Embedding(count, 512), nn.Linear(512, count, bias=False)

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return self.head(self.table(tokens))

    model = Tied().eval()
    config = IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=PerGroup(32))
    quantize_(model, config, lambda module, _name: isinstance(module, nn.Embedding))
    model.head.weight = model.table.weight
    return torch.export.export(model, (torch.zeros((1, 4), dtype=torch.long),))


KINDS: Final[Mapping[str, Callable[[int], Any]]] = {"layers": layers, "rows": rows}


def main() -> None:
    """Print a row for each size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--layers", type=int, nargs="*", default=[2, 8, 16, 32])
    parser.add_argument("--rows", type=int, nargs="*", default=[32768, 131072, 524288])
    parser.add_argument("--export", nargs=3, metavar=("KIND", "COUNT", "PATH"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.export:
        kind, count, path = given.export
        import torch  # noqa: PLC0415 - only where programs are built

        torch.export.save(KINDS[kind](int(count)), path)
        return
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    print("| | | CPU time | peak memory | .pt2 | .pte |", "|---|---|---|---|---|---|", sep="\n")
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "model.pt2"
        for kind in KINDS:
            for count in getattr(given, kind):
                export = [sys.executable, __file__, "--export", kind, str(count), program]
                subprocess.run(export, check=True, stderr=subprocess.DEVNULL)
                made = llm.optimized(program, program.with_suffix(".pte"))
                peak = made["cost"]["peak_rss_bytes"] / MIB
                sizes = (program.stat().st_size / MIB, made["output"]["bytes"] / MIB)
                cells = (
                    f"{made['cpu_seconds']:.1f} s | {peak:.0f} MiB | {sizes[0]:.1f} MiB | {sizes[1]:.1f} MiB"
                )
                print(f"| {kind} | {count} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
