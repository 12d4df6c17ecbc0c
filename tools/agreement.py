"""Whether programs, and the files that they were lowered to before there was a fused lookup, come to the same.

    python tools/agreement.py NAME=MODEL.pt2... -o tests/patch/agreement.json     a line of JSON for each program
    python tools/agreement.py --document                                          -> docs/patch.md

The folded file is what `vkfuse optimize --keep-baseline` keeps; it does not record the names of tables, so that the
program's file is written without them. Programs that the output has already are made again only where they are named.
"""

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import vkfuse
from vkfuse.measure.ledger import ledger
from vkfuse.pte import read_pte
from vkfuse.pte.model import PteFile
from vkfuse.report.model import Report

ROOT: Final = Path(__file__).parents[1]
RECORD: Final = ROOT / "tests" / "patch" / "agreement.json"
DOCUMENT: Final = ROOT / "docs" / "patch.md"
MARKS: Final = ("<!-- agreement -->\n", "\n<!-- /agreement -->")
Row = Mapping[str, Any]


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("programs", nargs="*", metavar="NAME=MODEL.pt2")
    parser.add_argument("-o", "--output", type=Path, default=RECORD)
    parser.add_argument("--document", action="store_true")
    given = parser.parse_args()
    known = json.loads(given.output.read_text("utf-8")) if given.output.exists() else []
    rows = {row["name"]: row for row in known}
    for program in given.programs:
        name, _, path = program.partition("=")
        rows[name] = agreement(name, path)
        sys.stderr.write(f"{rows[name]}\n")
        lines = ",\n".join(json.dumps(row) for row in sorted(rows.values(), key=lambda row: row["name"]))
        given.output.write_text(f"[\n{lines}\n]\n", "utf-8")
    if given.document:
        text = DOCUMENT.read_text("utf-8")
        before, after = text.partition(MARKS[0])[0], text.partition(MARKS[1])[2]
        DOCUMENT.write_text(before + MARKS[0] + table(rows.values()) + MARKS[1] + after, "utf-8")


def agreement(name: str, program: Any) -> Row:
    """What a program and its folded file come to; `ledger` is by how many bytes each kind differs."""
    with tempfile.TemporaryDirectory() as folder:
        written, folded, again = (Path(folder) / f"{name}.pte" for name in ("written", "folded", "again"))
        ours = vkfuse.optimize(program, written, keep_baseline=folded, names=False, verify=False).report
        theirs = vkfuse.optimize(folded, again).report
        return {
            "name": name,
            "tables": _tables(ours),
            "of_file": _tables(theirs),
            "folded": folded.stat().st_size,
            "bytes": written.stat().st_size,
            "bytes_of_file": again.stat().st_size,
            "cpu": sorted(ours.delegation.cpu),
            "cpu_of_file": sorted(theirs.delegation.cpu),
            "ledger": _apart(read_pte(written), read_pte(again)),
        }


def _tables(report: Report) -> list[list[Any]]:
    """What each table is: sizes, rung, bits."""
    return sorted([*row.shape, row.rung, row.bits] for row in report.tables)


def _apart(ours: PteFile, theirs: PteFile) -> dict[str, int]:
    """Bytes of each kind that the file's has more than the program's."""
    sizes = [Counter[str](), Counter[str]()]
    for found, file in zip(sizes, (ours, theirs), strict=True):
        for entry in ledger(file):
            found[entry.kind] += entry.bytes
    return {kind: sizes[1][kind] - sizes[0][kind] for kind in sorted({*sizes[0], *sizes[1]})}


def table(rows: Iterable[Row]) -> str:
    """The record as Markdown."""
    lines = [
        "| program | its tables | from the `.pt2` | folded | from the folded file | apart |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for row in rows:
        sizes = (f"{row[key]:,}" for key in ("bytes", "folded", "bytes_of_file"))
        lines.append(f"| {row['name']} | {_said(row)} | {' | '.join(sizes)} | {apart(row):+.2%} |")
    return "\n".join(lines)


def _said(row: Row) -> str:
    counts = Counter(rung for *_, rung, _bits in quantized(row["tables"]))
    return ", ".join(f"{count} `{rung}`" for rung, count in sorted(counts.items()))


def quantized(tables: Iterable[list[Any]]) -> list[list[Any]]:
    """Tables of integers; a program's rows also tell of floats that it looks up, a file's do not."""
    return [found for found in tables if found[-2] not in {"folded", "untouched"}]


def apart(row: Row) -> float:
    """How many bytes more the folded file comes to, as a share of the program's."""
    return float(row["bytes_of_file"] / row["bytes"] - 1)


if __name__ == "__main__":
    main()
