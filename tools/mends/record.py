"""What becomes of files that ExecuTorch's own lowering gets wrong: mended, and run on a Vulkan runtime before and after.

    python tools/mends/record.py --runner PATH -o tests/patch/mended.json

PATH is called as ../sweep/runner.py says. The programs are those of tests/verify/stock.py and torchao's configurations; a
file without a fault in it is left out. `python tests/patch/mended.py` prints the table of docs/patch.md from the record.
"""

import argparse
import json
import logging
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import torch

ROOT: Final = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "verify"), str(ROOT / "tools" / "sweep")]

import runner  # noqa: E402 - after the paths
import stock  # noqa: E402
import stock_programs as programs  # noqa: E402
from torchao.quantization import IntxWeightOnlyConfig  # noqa: E402
from torchao.quantization.granularity import PerAxis, PerGroup  # noqa: E402
from torchao.quantization.quant_primitives import MappingType  # noqa: E402

import vkfuse  # noqa: E402
from vkfuse.lint import faults, lint  # noqa: E402
from vkfuse.pte import parse_pte, read_pte  # noqa: E402
from vkfuse.quiet import quiet  # noqa: E402

RUNTIME: Final = "1.5.0"
_GRANULARITIES: Final = {"axis": PerAxis(0), "32": PerGroup(32)}
_RIGHT: Final = 1e-4  # of the largest value


def main() -> None:
    """Write the record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runner", required=True)
    parser.add_argument("-o", "--output", required=True, type=Path)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    rows = [row for case in (*stock.CASES, *configurations()) for row in recorded(case, options.runner)]
    options.output.write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n", "utf-8")


def configurations() -> Iterator[stock.Case]:
    """Yield torchao's configurations of lookups and linears that ExecuTorch's lowering does not fuse, or fuses wrongly."""
    for bits in (1, 2, 3, 5, 6, 7, 8):
        for name, granularity in _GRANULARITIES.items():
            config = IntxWeightOnlyConfig(weight_dtype=getattr(torch, f"int{bits}"), granularity=granularity)
            yield _case(f"lookup int{bits} {name}", programs.lookup((1, 8), config))
    for name, granularity in _GRANULARITIES.items():
        config = IntxWeightOnlyConfig(
            weight_dtype=torch.int8, granularity=granularity, mapping_type=MappingType.ASYMMETRIC
        )
        yield _case(f"lookup int8 asymmetric {name}", programs.lookup((1, 8), config))
        for bits in (2, 8):
            config = IntxWeightOnlyConfig(weight_dtype=getattr(torch, f"int{bits}"), granularity=granularity)
            yield _case(f"linear int{bits} {name}", programs.linear((4, 128), config))
    for columns in (30, 33, 40, 48, 100, 300):
        config = programs.int4(PerAxis(0))
        yield _case(f"lookup of {columns} columns", programs.lookup((1, 8), config, columns=columns))
    for shape in ((2, 16, 128), (2, 3, 16, 128)):
        yield _case(f"linear with bias on {list(shape)}", programs.linear(shape, bias=True))
        yield _case(f"8da4w on {list(shape)}", programs.dynamic_linear(shape))
    for group in (2, 3, 6):
        yield _case(f"linear in groups of {group}", programs.linear((4, 96), programs.int4(PerGroup(group))))


def _case(name: str, build: Any) -> stock.Case:
    return stock.Case(name=name, build=build, expected="wrong")


def recorded(case: stock.Case, path: str) -> Iterator[dict[str, Any]]:
    """Yield what became of one program, nothing where its file has no fault, or is never written."""
    with quiet():
        try:
            module, inputs, exported = stock.program_of(case)
            data = stock.stock_file(exported)
        except Exception:  # noqa: BLE001 - whatever a lowering of ExecuTorch raises: there is no file to mend
            return
    found = faults(lint(parse_pte(data), RUNTIME))
    if not found:
        return
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder) / "before.pte", Path(folder) / "after.pte"
        before.write_bytes(data)
        report = vkfuse.optimize(before, after, runtime=RUNTIME, partial=True).report
        left = [finding.code for finding in faults(lint(read_pte(after), RUNTIME))]
        yield {
            "name": case.name,
            "faults": list(dict.fromkeys(finding.code for finding in found)),
            "before": _verdict(path, before, inputs, module),
            "mends": list(dict.fromkeys(row.code for row in report.repairs)),
            "rungs": [table.rung for table in report.tables],
            "left": list(dict.fromkeys(left)),
            "after": "" if left else _verdict(path, after, inputs, module),
        }
    sys.stderr.write(f"{case.name}\n")


def _verdict(path: str, file: Path, inputs: Any, module: torch.nn.Module) -> str:
    """What the runtime does with a file: right, wrong, or what failed."""
    ran = runner.run(path, file, [inputs])
    if ran.state != "ran":
        return "not-loadable"
    wanted = module(*inputs)
    pairs = zip(ran.outputs[0], wanted if isinstance(wanted, (tuple, list)) else [wanted], strict=True)
    return "right" if all(_error(got, want) < _RIGHT for got, want in pairs) else "wrong"


def _error(got: torch.Tensor, wanted: torch.Tensor) -> float:
    if got.shape != wanted.shape:
        return float("inf")
    largest = float(wanted.float().abs().max())
    return float((got.float() - wanted.float()).abs().max()) / max(largest, 1e-9)


if __name__ == "__main__":
    main()
