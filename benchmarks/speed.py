"""What a release job costs: vkfuse and the installed ExecuTorch in turn on the same .pt2, each in a process of its own.

    python benchmarks/speed.py [minilm|demo|tied-table|MODEL.pt2 ...] [--pairs 3] [--defaults] [--import MODULE]

Medians of CPU seconds, wall seconds, peak memory and bytes, and what vkfuse takes of stock's. Stock is a plain script:
load, `to_edge_transform_and_lower` with VulkanPartitioner, `to_executorch`, write. vkfuse runs with ``--baseline none
--no-verify``, which is the same work; with ``--defaults`` as it comes, baseline and check
included; with ``--import`` stock imports a module first, such as `transformers.modeling_outputs`, without which torch loads
no program that returns one of its classes. A process counts its parent's memory as its own until it has more, so that this
one imports nothing heavy:
programs are exported in others.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MIB = 1 << 20
MODELS = ("minilm", "demo", "tied-table")
STOCK = """
import importlib, sys, torch, torchao
for name in sys.argv[3:]:
    importlib.import_module(name)
from executorch.backends.vulkan.partitioner.vulkan_partitioner import VulkanPartitioner
from executorch.exir import to_edge_transform_and_lower
program = torch.export.load(sys.argv[1])
made = to_edge_transform_and_lower(program, partitioner=[VulkanPartitioner()]).to_executorch()
with open(sys.argv[2], "wb") as stream:
    made.write_to_file(stream)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One process: CPU and wall seconds, peak resident bytes, and the bytes that it wrote (0 where it failed)."""

    cpu: float
    wall: float
    peak: int
    size: int


def run(command: Sequence[str], written: Path) -> Run:
    """Run `command` with silent output."""
    written.unlink(missing_ok=True)
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, _, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    size = written.stat().st_size if written.exists() else 0
    return Run(cpu=usage.ru_utime + usage.ru_stime, wall=wall, peak=usage.ru_maxrss * 1024, size=size)


def median(runs: Sequence[Run]) -> Run:
    """Of each figure by itself."""
    cpu, wall, peak, size = (
        statistics.median(getattr(each, name) for each in runs) for name in ("cpu", "wall", "peak", "size")
    )
    return Run(cpu=cpu, wall=wall, peak=int(peak), size=int(size))


def compared(
    source: Path, folder: Path, pairs: int, modules: Sequence[str], *, defaults: bool
) -> tuple[Run, Run]:
    """Medians of stock and of vkfuse on one program, run in turn."""
    stock_file, our_file = folder / "stock.pte", folder / "vkfuse.pte"
    stock = [sys.executable, "-c", STOCK, str(source), str(stock_file), *modules]
    same_work = [] if defaults else ["--baseline", "none", "--no-verify"]
    ours = [
        *(sys.executable, "-m", "vkfuse", "optimize", str(source), "-o", str(our_file), "-q"),
        *same_work,
    ]
    runs = [(run(stock, stock_file), run(ours, our_file)) for _ in range(pairs)]
    return median([first for first, _ in runs]), median([second for _, second in runs])


def row(name: str, run_: Run) -> str:
    """One line of the table."""
    size = f"{run_.size / MIB:9.1f}" if run_.size else "   failed"
    return f"{name:26} {run_.cpu:8.1f} {run_.wall:8.1f} {run_.peak / MIB:10.0f} {size}"


def main() -> None:
    """Print two lines and the ratios for each model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=[*MODELS], metavar="MODEL")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--defaults", action="store_true")
    parser.add_argument("--import", dest="modules", action="append", default=[], metavar="MODULE")
    options = parser.parse_args()
    print(f"{'':26} {'CPU s':>8} {'wall s':>8} {'peak MiB':>10} {'MiB out':>9}")
    with tempfile.TemporaryDirectory() as folder:
        for name in options.models or MODELS:
            source = Path(name)
            if name in MODELS:
                source = Path(folder) / f"{name}.pt2"
                subprocess.run(
                    [sys.executable, ROOT / "benchmarks" / "speed_models.py", name, source], check=True
                )
            stock, ours = compared(
                source, Path(folder), options.pairs, options.modules, defaults=options.defaults
            )
            print(row(f"{source.stem}, stock", stock))
            print(row(f"{source.stem}, vkfuse", ours))
            print(
                f"{'':26} {ours.cpu / stock.cpu:8.2f} {ours.wall / stock.wall:8.2f} {ours.peak / stock.peak:10.2f}"
            )


if __name__ == "__main__":
    main()
