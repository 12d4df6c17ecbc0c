"""What a release job costs: vkfuse, an earlier vkfuse and the installed ExecuTorch in turn, each in a process of its own.

    python benchmarks/speed.py [minilm|demo|tied-table|MODEL.pt2 ...] [--before TREE] [--only RUN ...] [--pairs 3]

A table in Markdown, medians where there are several pairs: CPU and wall seconds, peak memory and what that is of the .pt2,
bytes; in brackets what a run takes of the one that does the same work. Runs are

- `stock`, a plain script: load, `to_edge_transform_and_lower` with VulkanPartitioner, `to_executorch`, write; `same`
  (``--baseline none --no-verify``) does the same work
- `before` and `before-default` of another source tree, such as 0.1.0's, and beside them `none` (``--baseline none``) and
  `default`
- `known`, which fills an empty ``--cache``, and `new-weights`, the same graph with other weights: each plain tensor of the
  .pt2 back to front (programs whose weights are all pickled have none)
- `inspect`, the dry run; `vkfuse --help` stands at the end.

With ``--import`` stock imports a module first, such as `transformers.modeling_outputs`, without which torch loads no
program that returns one of its classes. A process counts its parent's memory as its own until it has more, so that this one
imports nothing heavy: programs are made in others.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
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
NONE = ("--baseline", "none")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A way to run: what it is called, the run that does the same work, and options where vkfuse optimizes."""

    title: str
    beside: str = ""
    options: tuple[str, ...] = ()
    before: bool = False


KINDS = {
    "stock": Kind(title="ExecuTorch alone"),
    "same": Kind(title="`--baseline none --no-verify`", beside="stock", options=(*NONE, "--no-verify")),
    "before": Kind(title="before, `--baseline none`", options=NONE, before=True),
    "none": Kind(title="`--baseline none`", beside="before", options=NONE),
    "before-default": Kind(title="before, as it comes", before=True),
    "default": Kind(title="as it comes", beside="before-default"),
    "known": Kind(title="`--baseline none --cache`, nothing known", options=NONE),
    "new-weights": Kind(title="`--baseline none --cache`, new weights", beside="known", options=NONE),
    "inspect": Kind(title="`inspect`"),
}
CACHED = ("known", "new-weights")


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One process: CPU and wall seconds, peak resident bytes, the bytes that it wrote; whether it failed."""

    cpu: float
    wall: float
    peak: int
    size: int
    failed: bool


def run(command: Sequence[str | Path], written: Path | None = None, tree: Path = ROOT) -> Run:
    """Run `command` with silent output, with the package of a source tree, where Python looks first."""
    if written:
        written.unlink(missing_ok=True)
    start = time.perf_counter()
    process = subprocess.Popen(
        command,
        cwd=tree,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(tree)},
    )
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    size = written.stat().st_size if written and written.exists() else 0
    cpu, peak = usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024
    return Run(cpu=cpu, wall=wall, peak=peak, size=size, failed=status != 0)


def median(runs: Sequence[Run]) -> Run:
    """Of each figure by itself."""
    cpu, wall, peak, size = (
        statistics.median(getattr(each, name) for each in runs) for name in ("cpu", "wall", "peak", "size")
    )
    failed = any(each.failed for each in runs)
    return Run(cpu=cpu, wall=wall, peak=int(peak), size=int(size), failed=failed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Programs:
    """A program, the same graph with other weights, and where files and entries of a cache go."""

    source: Path
    exchanged: Path
    folder: Path
    before: Path | None
    modules: tuple[str, ...]

    def run(self, name: str) -> Run:
        """Run one kind."""
        kind, written, python = KINDS[name], self.folder / f"{name}.pte", sys.executable
        if name == "stock":
            return run([python, "-c", STOCK, self.source, written, *self.modules], written)
        vkfuse = (python, "-m", "vkfuse")
        if name == "inspect":
            return run([*vkfuse, "inspect", self.source])
        source = self.exchanged if name == "new-weights" else self.source
        cache = ("--cache", str(self.folder / "cache")) if name in CACHED else ()
        command = [*vkfuse, "optimize", source, "-o", written, "-q", *kind.options, *cache]
        return run(command, written, self.before if kind.before and self.before else ROOT)

    def rows(self, names: Sequence[str], pairs: int) -> Iterator[str]:
        """Run each kind in turn, and yield the rows of the table."""
        runs: dict[str, list[Run]] = {name: [] for name in names}
        for _ in range(pairs):
            for entry in (self.folder / "cache").glob("*"):
                entry.unlink()
            for name in names:
                runs[name].append(self.run(name))
                print(f"{self.source.stem}, {name}: {runs[name][-1]}", file=sys.stderr)
        medians = {name: median(of) for name, of in runs.items()}
        for name in names:
            yield row(self.source, name, medians)


def row(source: Path, name: str, medians: Mapping[str, Run]) -> str:
    """One line of the table."""
    of, beside = medians[name], medians.get(KINDS[name].beside)
    cells = [
        f"{of.cpu:.1f}{ratio(of.cpu, beside and beside.cpu)}",
        f"{of.wall:.1f}{ratio(of.wall, beside and beside.wall)}",
        f"{of.peak / MIB:,.0f}{ratio(of.peak, beside and beside.peak)}",
        f"{of.peak / source.stat().st_size:.2f}x",
        "fails" if of.failed else f"{of.size:,}{ratio(of.size, beside and beside.size)}" if of.size else "",
    ]
    return f"| {source.stem} | {KINDS[name].title} | " + " | ".join(cells) + " |"


def ratio(value: float, beside: float | None) -> str:
    """What a figure is of the other one's, where there is one."""
    return f" ({value / beside:.2f}x)" if beside else ""


def make(*arguments: str | Path) -> None:
    """Make a program in a process of its own."""
    subprocess.run([sys.executable, ROOT / "benchmarks" / "speed_models.py", *arguments], check=True)


def compared(model: str, folder: Path, names: Sequence[str], options: argparse.Namespace) -> Iterator[str]:
    """Yield the rows of a model."""
    source, exchanged = Path(model).resolve(), folder / "exchanged.pt2"
    if model in MODELS:
        source = folder / f"{model}.pt2"
        make(model, source)
    exchanged.unlink(missing_ok=True)
    if "new-weights" in names:
        make("exchanged", exchanged, source)
    programs = Programs(
        source=source,
        exchanged=exchanged,
        folder=folder,
        before=options.before and options.before.resolve(),
        modules=tuple(options.modules),
    )
    yield from programs.rows([n for n in names if n not in CACHED or exchanged.exists()], options.pairs)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="*", metavar="MODEL")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--before", type=Path, metavar="TREE", help="the source tree of an earlier vkfuse")
    parser.add_argument("--only", nargs="+", choices=[*KINDS], metavar="RUN", help=", ".join(KINDS))
    parser.add_argument("--import", dest="modules", action="append", default=[], metavar="MODULE")
    options = parser.parse_args()
    names = options.only or [name for name in KINDS if options.before or not KINDS[name].before]
    print(
        "| program | run | CPU s | wall s | peak MiB | of the .pt2 | bytes |",
        "|---|---|---:|---:|---:|---:|---:|",
        sep="\n",
    )
    with tempfile.TemporaryDirectory() as folder:
        for model in options.models or MODELS:
            for line in compared(model, Path(folder), names, options):
                print(line, flush=True)
    shown = median([run([sys.executable, "-m", "vkfuse", "--help"]) for _ in range(5)])
    print(f"| | `vkfuse --help` | {shown.cpu:.2f} | {shown.wall:.2f} | {shown.peak / MIB:.0f} | | |")


if __name__ == "__main__":
    main()
