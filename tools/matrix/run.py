"""The matrix of tables: what becomes of each, whether the file loads, is right, and is so on a real runtime.

    python tools/matrix/run.py 0 240 -o verdicts.jsonl [--runner PATH]     a line of JSON for each program
    python tools/matrix/run.py --golden verdicts.jsonl                     -> tests/optimize/matrix.json and docs/tables.md

How a runner is called stands in tools/sweep/runner.py. Programs that the output has already are left out. `right` is the
file's own verification, `runtime` what the runner computed against eager: right, wrong, or what failed.
"""

import argparse
import json
import sys
import tempfile
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parents[1] / "sweep"))

import matrix_programs as programs
import runner
import torch

import vkfuse
from vkfuse.errors import VkfuseError
from vkfuse.quiet import quiet

ROOT: Final = Path(__file__).parents[2]
GOLDEN: Final = ROOT / "tests" / "optimize" / "matrix.json"
DOCUMENT: Final = ROOT / "docs" / "tables.md"
_OFF: Final = {
    torch.float32: 1e-5,
    torch.float16: 1e-2,
    torch.bfloat16: 5e-2,
}  # in shares of the largest value
Row = Mapping[str, Any]


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("first", type=int, nargs="?", default=0)
    parser.add_argument("end", type=int, nargs="?", default=0)
    parser.add_argument("--only", type=int, nargs="*", default=[], help="these programs")
    parser.add_argument("-o", "--output", type=Path, default=Path("verdicts.jsonl"))
    parser.add_argument("--runner", default="")
    parser.add_argument("--runtime", default="1.5.0")
    parser.add_argument("--golden", type=Path)
    given = parser.parse_args()
    if given.golden is not None:
        write_golden(list(_lines(given.golden)))
        return
    done = {row["number"] for row in _lines(given.output)}
    with given.output.open("a", encoding="utf-8") as stream:
        for number in given.only or range(given.first, given.end):
            if number not in done:
                stream.write(json.dumps(verdict(number, given.runtime, given.runner)) + "\n")
                stream.flush()


def verdict(number: int, runtime: str, tool: str = "") -> dict[str, Any]:
    """What vkfuse makes of a program, and what a runner computes."""
    with tempfile.TemporaryDirectory() as folder, quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exported, path = programs.program(number), Path(folder) / "model.pte"
        try:
            report = vkfuse.optimize(exported, path, baseline="none", runtime=runtime).report
        except VkfuseError as error:
            return {"number": number, "refused": str(error)}
        found = {
            "number": number,
            "rungs": [table.rung for table in report.tables],
            "how": sorted({code for table in report.tables for code in table.how}),
            "reasons": [table.reason.partition(":")[0] for table in report.tables if table.reason],
            "proofs": [table.proof.kind for table in report.tables if table.proof],
            "loads": report.loadable.ok,
            "right": report.verify.ok,
        }
        return found | ({"runtime": _ran(number, exported, path, tool)} if tool else {})


def _ran(number: int, exported: Any, path: Path, tool: str) -> str:
    calls = [(programs.tokens(number, seed),) for seed in (0, 1)]
    ran = runner.run(tool, path, calls)
    if ran.state != "ran":
        return ran.state
    for call, outputs in zip(calls, ran.outputs, strict=True):
        with torch.no_grad():
            wanted = exported.module()(*call)
        largest = float(wanted.double().abs().max()) or 1.0
        if not float((outputs[0].double() - wanted.double()).abs().max()) <= _OFF[wanted.dtype] * largest:
            return "wrong"
    return "right"


def _lines(path: Path) -> Iterator[Row]:
    if path.exists():
        yield from map(json.loads, path.read_text("utf-8").splitlines())


def write_golden(rows: list[Row]) -> None:
    """Write the rungs of all programs, and the document that tells them by bits, groups and mapping."""
    kept = [{key: value for key, value in row.items() if key != "proofs"} for row in rows]
    ordered = sorted(kept, key=lambda row: row["number"])
    GOLDEN.write_text("[\n" + ",\n".join(map(json.dumps, ordered)) + "\n]\n", "utf-8")
    DOCUMENT.write_text(document(ordered), "utf-8")


def document(rows: Iterable[Row]) -> str:
    """The text of docs/tables.md."""
    rows = list(rows)
    right = Counter(row.get("runtime", "not run") for row in rows)
    cells: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for row in rows:
        of = programs.choices(row["number"])
        group = "row" if not of["group"] else "4 divides" if of["group"] % 4 == 0 else "4 does not divide"
        bits = "1 to 4" if of["bits"] <= 4 else "5 to 8"
        cells[bits, group, of["mapping"]].extend(row.get("rungs", ["refused"]))
    lines = [
        f"| {' | '.join(key)} | {', '.join(f'`{rung}` {count}' for rung, count in Counter(found).most_common())} |"
        for key, found in sorted(cells.items())
    ]
    return _HEAD.format(count=len(rows), loads=sum(row.get("loads", False) for row in rows)) + (
        "\n".join(lines)
        + "\n\nOn the 1.5.0 runtime (Mesa lavapipe): "
        + ", ".join(f"{count} {state}" for state, count in right.most_common())
        + ".\n"
    )


_HEAD: Final = """# Tables of every kind, and what becomes of them

Written by `python tools/matrix/run.py --golden`; `tests/optimize/test_matrix.py` holds it and the rungs of each program.

{count} programs, drawn over bits, granularity, mapping, types of scales and of the model, columns, rows, shapes and types
of indices, a head that is tied, beside or none, unwrapped or not, strict or not, dynamic or not, decomposed or not
(`tools/matrix/matrix_programs.py`). {loads} of the files load. Counted are tables; a head beside has one of its own, and a
table of several readers stands at the rung of its worst ([optimize.md](optimize.md) has what rungs and codes mean).

| bits | groups of columns | mapping | rungs |
|---|---|---|---|
"""


if __name__ == "__main__":
    main()
